//! The dependencies between the files of a package, read from their `use` declarations and paths.
//!
//! A file depends on another if it names something that the other defines. Names that a module only re-exports count for the
//! file that defines them, and re-exporting a name is no dependency. Unit tests (`#[cfg(test)]`) are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, File, Item, ItemUse, UseTree, Visibility};

/// A module in a file of its own.
#[derive(Default)]
struct Module {
    file: PathBuf,
    /// Names of the items that it defines.
    defined: BTreeSet<String>,
    /// Names that it imports or re-exports, with their paths.
    imported: BTreeMap<String, Vec<String>>,
    /// Paths of glob imports (`use …::*`).
    globs: Vec<Vec<String>>,
    /// Child modules that are files.
    children: BTreeSet<String>,
    /// Paths in its code.
    named: BTreeSet<Vec<String>>,
}

/// The modules of one crate by their paths.
type Modules = BTreeMap<Vec<String>, Module>;

/// Dependencies of one file on another, each with the names that the first file uses.
pub type Dependencies = BTreeMap<(PathBuf, PathBuf), BTreeSet<String>>;

/// The files of the crate with this root file: the root and those of its modules.
///
/// # Panics
/// A file cannot be read or parsed.
pub fn files(root: &Path) -> BTreeSet<PathBuf> {
    let mut modules = Modules::new();
    read(root, Vec::new(), &mut modules);
    modules.into_values().map(|module| module.file).collect()
}

/// The dependencies between the files of the crate with this root file, such as `src/lib.rs`.
///
/// # Panics
/// A file cannot be read or parsed.
pub fn dependencies(root: &Path) -> Dependencies {
    let mut modules = Modules::new();
    read(root, Vec::new(), &mut modules);
    let mut dependencies = Dependencies::new();
    for (path, module) in &modules {
        for named in &module.named {
            let Some((file, name)) = resolve(&modules, path, named, 0) else {
                continue;
            };
            if file != module.file {
                let edge = (module.file.clone(), file);
                dependencies.entry(edge).or_default().insert(name);
            }
        }
    }
    dependencies
}

/// The groups of files that depend on each other in a circle, each with the dependencies inside the group.
pub fn circles(dependencies: &Dependencies) -> Vec<Vec<String>> {
    let files: BTreeSet<&PathBuf> = dependencies.keys().flat_map(|(a, b)| [a, b]).collect();
    let reached = |from: &PathBuf| {
        let (mut seen, mut waiting) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(at) = waiting.pop() {
            for (_, next) in dependencies.keys().filter(|(a, _)| *a == at) {
                if seen.insert(next.clone()) {
                    waiting.push(next.clone());
                }
            }
        }
        seen
    };
    let reach: BTreeMap<&PathBuf, BTreeSet<PathBuf>> =
        files.iter().map(|file| (*file, reached(file))).collect();
    let (mut done, mut circles) = (BTreeSet::new(), Vec::new());
    for file in files {
        if !reach[file].contains(file) || done.contains(file) {
            continue;
        }
        let members: BTreeSet<&PathBuf> = reach
            .iter()
            .filter(|(other, from)| reach[file].contains(**other) && from.contains(file))
            .map(|(other, _)| *other)
            .collect();
        let inside = dependencies
            .iter()
            .filter(|((a, b), _)| members.contains(a) && members.contains(b));
        let lines = inside.map(|((a, b), names)| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            format!("{} -> {}: {}", a.display(), b.display(), names.join(", "))
        });
        circles.push(lines.collect());
        done.extend(members);
    }
    circles
}

fn read(file: &Path, path: Vec<String>, modules: &mut Modules) {
    let source = std::fs::read_to_string(file)
        .unwrap_or_else(|e| panic!("{} cannot be read: {e}", file.display()));
    let parsed: File =
        syn::parse_file(&source).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let mut module = Module {
        file: file.to_owned(),
        ..Module::default()
    };
    let mut paths = Paths::default();
    for item in &parsed.items {
        if is_for_tests(attributes(item)) {
            continue;
        }
        if let Some(name) = name_of(item) {
            module.defined.insert(name);
        }
        match item {
            Item::Mod(child) if child.content.is_none() => {
                module.children.insert(child.ident.to_string());
            }
            Item::Use(declaration) => module.import(declaration),
            item => paths.visit_item(item),
        }
    }
    module.named.extend(paths.0);
    let children = module.children.clone();
    modules.insert(path.clone(), module);
    for child in children {
        let found = child_file(file, path.is_empty(), &child);
        read(&found, [path.clone(), vec![child]].concat(), modules);
    }
}

fn child_file(parent: &Path, is_root: bool, child: &str) -> PathBuf {
    let folder = parent.parent().expect("a file is in a folder");
    let own_folder = is_root || parent.file_name().is_some_and(|name| name == "mod.rs");
    let folder = match own_folder {
        true => folder.to_owned(),
        false => parent.with_extension(""),
    };
    let flat = folder.join(format!("{child}.rs"));
    match flat.exists() {
        true => flat,
        false => folder.join(child).join("mod.rs"),
    }
}

impl Module {
    fn import(&mut self, declaration: &ItemUse) {
        let mut leaves = Vec::new();
        flatten(&declaration.tree, Vec::new(), &mut leaves);
        for (path, name) in leaves {
            match name {
                Some(name) => {
                    // A re-export is no dependency.
                    if matches!(declaration.vis, Visibility::Inherited) {
                        self.named.insert(path.clone());
                    }
                    self.imported.insert(name, path);
                }
                None => self.globs.push(path),
            }
        }
    }
}

/// Collects the paths of a `use` tree, each with the imported name; `None` for a glob.
fn flatten(tree: &UseTree, prefix: Vec<String>, leaves: &mut Vec<(Vec<String>, Option<String>)>) {
    let with = |last: String| [prefix.clone(), vec![last]].concat();
    match tree {
        UseTree::Path(path) => flatten(&path.tree, with(path.ident.to_string()), leaves),
        UseTree::Name(name) if name.ident == "self" => {
            leaves.push((prefix.clone(), prefix.last().cloned()));
        }
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            leaves.push((with(name.clone()), Some(name)));
        }
        UseTree::Rename(rename) => {
            leaves.push((
                with(rename.ident.to_string()),
                Some(rename.rename.to_string()),
            ));
        }
        UseTree::Glob(_) => leaves.push((prefix, None)),
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, prefix.clone(), leaves);
            }
        }
    }
}

/// The file and the name that a path in the module `at` refers to; `None` if they belong to another crate.
fn resolve(
    modules: &Modules,
    at: &[String],
    path: &[String],
    depth: usize,
) -> Option<(PathBuf, String)> {
    // Limits the recursion when re-exports refer to each other.
    if depth > 16 {
        return None;
    }
    let (mut module, mut rest) = (at.to_vec(), path);
    match rest.first()?.as_str() {
        "crate" => {
            module.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|first| first == "super") {
                module.pop();
                rest = &rest[1..];
            }
        }
        first => {
            let here = &modules[&module];
            let known = here.children.contains(first) || here.imported.contains_key(first);
            if !known {
                return None;
            }
        }
    }
    loop {
        let here = &modules[&module];
        let Some(first) = rest.first() else {
            return Some((here.file.clone(), "self".into()));
        };
        if here.children.contains(first) {
            module.push(first.clone());
            rest = &rest[1..];
            continue;
        }
        if here.defined.contains(first) {
            return Some((here.file.clone(), first.clone()));
        }
        if let Some(target) = here.imported.get(first) {
            let target = [target.as_slice(), &rest[1..]].concat();
            // A path that imports itself belongs to another crate.
            return match target == rest {
                true => None,
                false => resolve(modules, &module, &target, depth + 1),
            };
        }
        let by_glob = here.globs.iter().find_map(|glob| {
            let target = [glob.as_slice(), rest].concat();
            resolve(modules, &module, &target, depth + 1)
        });
        return by_glob.filter(|(_, name)| name == first);
    }
}

/// Collects the paths of at least two segments.
#[derive(Default)]
struct Paths(BTreeSet<Vec<String>>);

impl<'ast> Visit<'ast> for Paths {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            let segments = path.segments.iter().map(|s| s.ident.to_string());
            self.0.insert(segments.collect());
        }
        visit::visit_path(self, path);
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|condition| condition == "test")
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name_of(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(item) => item.ident.to_string(),
        Item::Enum(item) => item.ident.to_string(),
        Item::Fn(item) => item.sig.ident.to_string(),
        Item::Macro(item) => item.ident.as_ref()?.to_string(),
        Item::Mod(item) if item.content.is_some() => item.ident.to_string(),
        Item::Static(item) => item.ident.to_string(),
        Item::Struct(item) => item.ident.to_string(),
        Item::Trait(item) => item.ident.to_string(),
        Item::Type(item) => item.ident.to_string(),
        _ => return None,
    })
}
