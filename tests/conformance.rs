//! docs/conformance.md, held to its word: every name of both manuals has a line, what a line names is in the code, and
//! its tests are among those that `cargo test --workspace` runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Kinds and names that the document says are not built yet. What is built leaves this list.
const NOT_BUILT: &[(&str, &str)] = &[("interface", "opensipsctl")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A line of the table.
struct Line {
    /// Its number, for messages.
    at: usize,
    name: String,
    kind: String,
    edition: String,
    /// File, item.
    code: Vec<(String, String)>,
    /// File, function.
    tests: Vec<(String, String)>,
}

/// The words between backquotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn table(text: &str) -> Vec<Line> {
    let mut lines = vec![];
    for (n, line) in text.lines().enumerate() {
        let at = n + 1;
        let cells: Vec<&str> = line.trim().split('|').map(str::trim).collect();
        if cells.len() < 2 || cells[1] == "name" || cells[1].starts_with("--") {
            continue;
        }
        let [_, name, kind, edition, code, tests, _] = cells[..] else {
            panic!("docs/conformance.md:{at}: expected | name | kind | edition | code | tests |, found {line}");
        };
        let code = quoted(code).iter().map(|c| split(c, " ", at)).collect();
        let tests = quoted(tests).iter().map(|t| split(t, "::", at)).collect();
        let name = name.trim_matches('`').to_owned();
        lines.push(Line { at, name, kind: kind.to_owned(), edition: edition.to_owned(), code, tests });
    }
    lines
}

fn split(text: &str, by: &str, at: usize) -> (String, String) {
    let (file, item) = text.split_once(by).unwrap_or_else(|| panic!("docs/conformance.md:{at}: no `{by}` in `{text}`"));
    (file.to_owned(), item.to_owned())
}

/// (kind, name) to edition, as tests/data/manual-names.txt has them.
fn manual_names() -> BTreeMap<(String, String), String> {
    let text = read("tests/data/manual-names.txt");
    let mut names = BTreeMap::new();
    let mut last = None;
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            last = None;
            continue;
        }
        assert!(last.is_none_or(|l| l < line), "manual-names.txt: sort the lines of each section: {line}");
        last = Some(line);
        let words = line.split_once(' ').and_then(|(kind, rest)| Some((kind, rest.rsplit_once(' ')?)));
        let Some((kind, (name, edition))) = words else { panic!("manual-names.txt: KIND NAME EDITION, found {line}") };
        assert!(["old", "new", "both"].contains(&edition), "manual-names.txt: {line}");
        let twice = names.insert((kind.to_owned(), name.trim().to_owned()), edition.to_owned());
        assert!(twice.is_none(), "manual-names.txt: {line} is there twice");
    }
    names
}

/// Packages of the workspace, by their folders.
fn packages() -> Vec<String> {
    let manifest = read("Cargo.toml");
    let members = manifest.split("members = [").nth(1).and_then(|m| m.split(']').next()).expect("members");
    let members = members.split('"').skip(1).step_by(2).map(|m| format!("{m}/"));
    std::iter::once(String::new()).chain(members).collect()
}

/// The files that `cargo test --workspace` compiles into tests: from each target's root along `mod` lines, without
/// those that a `cfg` other than `test` may leave out.
fn compiled() -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for package in packages() {
        let manifest = read(&format!("{package}Cargo.toml"));
        for off in ["test = false", "harness = false"] {
            let benches = manifest.matches("[[bench]]").count();
            assert!(manifest.matches(off).count() <= benches, "{package}Cargo.toml: `{off}`: teach this test about it");
        }
        follow(&format!("{package}src/lib.rs"), true, &mut files);
        follow(&format!("{package}src/main.rs"), true, &mut files);
        for entry in std::fs::read_dir(root().join(format!("{package}tests"))).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                follow(&format!("{package}tests/{name}/main.rs"), true, &mut files);
            } else if name.ends_with(".rs") {
                follow(&format!("{package}tests/{name}"), true, &mut files);
            }
        }
    }
    files
}

/// A `cfg` under which a plain `cargo test` compiles nothing.
fn left_out(attribute: &str) -> bool {
    let condition = attribute.trim_start_matches(['#', '!', '[']);
    condition.starts_with("cfg(") && !condition.starts_with("cfg(test)") && !condition.starts_with("cfg(not(")
}

fn follow(file: &str, is_root: bool, files: &mut BTreeSet<String>) {
    let Ok(text) = std::fs::read_to_string(root().join(file)) else { return };
    if text.lines().any(|l| l.starts_with("#![cfg(") && left_out(l)) || !files.insert(file.to_owned()) {
        return;
    }
    let path = Path::new(file);
    let own_folder = is_root || path.file_name().is_some_and(|n| n == "mod.rs");
    let folder = if own_folder { path.parent().unwrap_or(Path::new("")).to_owned() } else { path.with_extension("") };
    let mut attributes: Vec<&str> = vec![];
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributes.push(line);
            continue;
        }
        let module = line
            .strip_suffix(';')
            .and_then(|l| l.split_once("mod "))
            .filter(|(before, _)| before.is_empty() || (before.starts_with("pub") && before.ends_with(' ')));
        if let Some((_, name)) = module
            && !attributes.iter().any(|a| left_out(a))
        {
            let file = |p: PathBuf| p.to_string_lossy().into_owned();
            follow(&file(folder.join(format!("{name}.rs"))), false, files);
            follow(&file(folder.join(name).join("mod.rs")), false, files);
        }
        attributes.clear();
    }
}

/// What keeps the function from being a test that runs.
fn fault_of_test(text: &str, function: &str) -> Option<&'static str> {
    let mut attributes: Vec<&str> = vec![];
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributes.push(line);
        } else if !line.starts_with("//") {
            let is_it = line.split_once("fn ").is_some_and(|(before, after)| {
                ["", "async ", "pub "].contains(&before)
                    && after.strip_prefix(function).is_some_and(|rest| rest.starts_with('('))
            });
            if is_it {
                let has = |what: &str| attributes.iter().any(|a| a.contains(what));
                return match () {
                    () if !has("#[test]") && !has("::test") => Some("is not a #[test]"),
                    () if has("ignore") => Some("is ignored"),
                    () if attributes.iter().any(|a| left_out(a)) => Some("is left out by its cfg"),
                    () => None,
                };
            }
            attributes.clear();
        }
    }
    Some("is not there")
}

#[test]
fn every_name_of_the_manuals_has_a_line_and_every_line_is_true() {
    let (doc, names, compiled) = (read("docs/conformance.md"), manual_names(), compiled());
    let lines = table(&doc);
    let mut faults = vec![];
    let mut seen = BTreeSet::new();
    for line in &lines {
        let mut fault = |what: String| faults.push(format!("docs/conformance.md:{}: {}: {what}", line.at, line.name));
        let key = (line.kind.clone(), line.name.clone());
        match names.get(&key) {
            None if line.edition == "ours" => {}
            None => fault(format!("no {} of that name is in the manuals; mark it `ours`", line.kind)),
            Some(edition) if *edition != line.edition => fault(format!("is in: {edition}, not {}", line.edition)),
            Some(_) => {}
        }
        if !seen.insert(key) {
            fault("has another line".to_owned());
        }
        if line.code.is_empty() || line.tests.is_empty() {
            fault("names no code or no test".to_owned());
        }
        for (file, item) in &line.code {
            match std::fs::read_to_string(root().join(file)) {
                Err(e) => fault(format!("{file}: {e}")),
                Ok(text) if !text.contains(item) => fault(format!("{file} has no `{item}`")),
                Ok(_) => {}
            }
        }
        for (file, function) in &line.tests {
            if !compiled.contains(file) {
                fault(format!("{file} is in no test of the workspace"));
            } else if let Some(what) = fault_of_test(&read(file), function) {
                fault(format!("{file}: {function} {what}"));
            }
        }
    }
    let built = |kind: &str, name: &str| seen.contains(&(kind.to_owned(), name.to_owned()));
    for (kind, name) in names.keys().filter(|(kind, name)| !built(kind, name)) {
        let lacks = doc.contains(&format!("\n- {kind} `{name}`: "));
        if !lacks || !NOT_BUILT.contains(&(kind, name)) {
            faults.push(format!("the {kind} {name} of the manuals has no line in docs/conformance.md"));
        }
    }
    for (kind, name) in NOT_BUILT.iter().filter(|(kind, name)| built(kind, name)) {
        faults.push(format!("the {kind} {name} has a line: take it off the list of what is not built"));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(lines.len() > 100 && names.len() > 100, "{} lines, {} names", lines.len(), names.len());
}

#[test]
fn what_is_no_running_test_is_found_out() {
    let text = "
        #[test]
        fn good() {}
        #[tokio::test]
        async fn also_good() {}
        #[test]
        #[ignore]
        fn slow() {}
        #[cfg(loom)]
        #[test]
        fn modelled() {}
        fn helper() {}
    ";
    let found = ["good", "also_good", "slow", "modelled", "helper", "goo", "missing"].map(|f| fault_of_test(text, f));
    let missing = Some("is not there");
    assert_eq!(found[..2], [None, None]);
    assert_eq!(found[2..5], [Some("is ignored"), Some("is left out by its cfg"), Some("is not a #[test]")]);
    assert_eq!(found[5..], [missing, missing]);
    let compiled = compiled();
    for (file, there) in [
        ("tests/conformance.rs", true),
        ("tests/e2e/sipp.rs", true),
        ("src/store/tests.rs", true),
        ("shards/dispatch/tests/basics.rs", true),
        ("shards/dispatch/tests/loom.rs", false),
        ("bench/benches/dispatch.rs", false),
    ] {
        assert_eq!(compiled.contains(file), there, "{file}");
    }
}
