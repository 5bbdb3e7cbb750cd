//! `strowger demo` end to end: real server, real UDP, books that balance.

mod support;

use serde_json::Value;
use support::{Scene, code, stderr, stdout};

#[test]
fn the_books_of_a_demo_balance() {
    let scene = Scene::new();
    let out = scene.run(&[
        "demo",
        "--seconds",
        "3",
        "--rate",
        "15",
        "--agents",
        "12",
        "--talk",
        "1.2",
        "--seed",
        "7",
        "--json",
    ]);
    assert_eq!(code(&out), 0, "{}{}", stdout(&out), stderr(&out));
    let last = stdout(&out).lines().last().unwrap().to_owned();
    let books: Value = serde_json::from_str(&last).unwrap();
    let n = |key: &str| books[key].as_i64().unwrap_or_else(|| panic!("{key} in {last}"));
    assert!(n("offered") > 10 && n("answered") > 0, "{last}");
    assert_eq!(n("offered"), n("answered") + n("abandoned") + n("refused") + n("failed"));
    assert_eq!(n("cdrs_written"), n("cdrs_expected"));
    assert_eq!(
        (n("failed"), n("agents_stuck"), n("double_bookings"), n("onhold_at_rest"), n("violations")),
        (0, 0, 0, 0, 0),
        "{last}"
    );
    assert!(n("messages") > n("offered") * 10);
    assert!(books["dispatch_latency_us"]["max"].as_u64().unwrap() > 0, "{last}");
    assert!(stderr(&out).contains(" s  calls: "), "a line a second: {}", stderr(&out));
    let left = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    let mine = left
        .filter(|e| e.file_name().to_string_lossy().starts_with(&format!("strowger-demo-{}-", scene.last_pid())))
        .count();
    assert_eq!(mine, 0, "the demo cleans up");
}
