//! The settings of reverse proxies that docs/operating.md recommends, so that tests run what operators copy from it.

const DOCUMENT: &str = include_str!("../../docs/operating.md");

/// The indented block after the line of docs/operating.md that begins with `heading`.
///
/// # Panics
/// There is no such block.
pub fn recipe(heading: &str) -> String {
    let found = DOCUMENT
        .lines()
        .skip_while(|line| !line.starts_with(heading));
    let block: Vec<&str> = found
        .skip(1)
        .skip_while(|line| line.is_empty())
        .take_while(|line| line.is_empty() || line.starts_with("    "))
        .map(|line| line.strip_prefix("    ").unwrap_or_default())
        .collect();
    assert!(
        !block.is_empty(),
        "docs/operating.md has no block for {heading}"
    );
    block.join("\n")
}

/// A recipe with some lines replaced. Each replacement names the beginning of its line.
///
/// # Panics
/// Not exactly one line has this beginning, which shows that the document has changed.
pub fn with_lines(recipe: &str, replacements: &[(&str, &str)]) -> String {
    let mut lines: Vec<String> = recipe.lines().map(str::to_owned).collect();
    for (beginning, replacement) in replacements {
        let mut found = lines
            .iter_mut()
            .filter(|line| line.trim_start().starts_with(beginning));
        let (line, other) = (found.next(), found.next());
        let (Some(line), None) = (line, other) else {
            panic!("not one line begins with {beginning:?} in {recipe}");
        };
        (*replacement).clone_into(line);
    }
    lines.join("\n")
}
