//! The settings of reverse proxies that docs/operating.md recommends, so that tests run what operators copy.

const DOCUMENT: &str = include_str!("../../docs/operating.md");

/// The indented block that follows the line which begins with `heading`.
///
/// # Panics
/// There is none.
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

/// A recipe with other lines in the place of some, by the first words of those lines.
///
/// # Panics
/// The recipe has no line that begins so, or several, so that a changed document is noticed.
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
