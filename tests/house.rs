//! The habits that keep the house in order, held by a test: small files, the sans-I/O wall, commands that exist.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn files_stay_small_and_say_what_they_are_for() {
    let mut files = Vec::new();
    sources(root(), &mut files);
    assert!(files.len() > 100, "the sources are found");
    let faults: Vec<String> = files
        .iter()
        .filter_map(|file| {
            let text = read(file);
            let lines = text.lines().count();
            let named = text.starts_with("//!") || text.starts_with("#![");
            (lines > 600 || !named).then(|| format!("{}: {lines} lines, module docs: {named}", file.display()))
        })
        .collect();
    assert!(faults.is_empty(), "one subject a file, under 600 lines, module docs first:\n{}", faults.join("\n"));
}

#[test]
fn the_wall_around_the_sans_io_rooms_stands() {
    for room in ["shards/dispatch", "shards/sip", "shards/engine", "cdr"] {
        let wall = read(&root().join(room).join("clippy.toml"));
        for banned in ["Instant::now", "SystemTime::now", "thread::spawn", "UdpSocket", "Mutex", "RandomState"] {
            assert!(wall.contains(banned), "{room}/clippy.toml lets {banned} through");
        }
        let manifest = read(&root().join(room).join("Cargo.toml"));
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for outside in ["tokio", "glommio", "socket2", "rand.", "flume"] {
            assert!(!dependencies.contains(outside), "{room} depends on {outside}");
        }
    }
}

#[test]
fn what_the_readme_says_to_run_exists() {
    use std::os::unix::fs::PermissionsExt;
    let readme = read(&root().join("README.md"));
    for command in ["cargo run --release -- demo", "tests/run", "cargo sim -- --seeds", "--bench dispatch"] {
        assert!(readme.contains(command), "README.md does not name {command}");
    }
    let mode = |path: &str| std::fs::metadata(root().join(path)).expect("it exists").permissions().mode();
    assert!(mode("tests/run") & 0o111 != 0 && mode(".ci/run") & 0o111 != 0, "tests/run and .ci/run are executable");
    assert!(read(&root().join(".cargo/config.toml")).contains("sim ="), "the alias `cargo sim`");
    assert!(read(&root().join("bench/Cargo.toml")).contains("name = \"dispatch\""), "the benchmark `dispatch`");
}

/// Arguments follow the `--` that the reader writes: `cargo sim -- --seed 17`.
#[test]
fn an_alias_leaves_the_separator_to_its_caller() {
    let config = read(&root().join(".cargo/config.toml"));
    let aliases: Vec<&str> = config.lines().filter(|l| l.contains('=')).collect();
    assert!(!aliases.is_empty() && aliases.iter().all(|l| !l.trim_end().ends_with("--\"")), "{aliases:?}");
}
