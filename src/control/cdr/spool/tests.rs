//! The spool on a real disk: what damage, full disks, strangers and crashes cost.

use super::*;
use crate::store::tests::cdr;
use strowger_cdr::spool::{CURSOR, WINDOW};
use strowger_engine::CdrRow;
use tempfile::TempDir;

const BIG: u64 = 1 << 30;

fn row(n: u64) -> CdrRow {
    CdrRow { caller: format!("caller {n}").into(), ..CdrRow::from(&cdr(u128::from(n), "")) }
}

fn rows(range: std::ops::Range<u64>) -> Vec<CdrRow> {
    range.map(row).collect()
}

fn open(dir: &TempDir) -> (Spool, Option<Damage>) {
    super::open(dir.path(), BIG).unwrap()
}

/// All that is in it, in order, and the damage; the cursor moves to the end.
fn drain(spool: &mut Spool, max: usize) -> (Vec<CdrRow>, Vec<Damage>) {
    let (mut rows, mut damaged) = (vec![], vec![]);
    for _ in 0..100_000 {
        if spool.left() == 0 {
            return (rows, damaged);
        }
        let found = spool.load(max).unwrap();
        rows.extend(found.rows);
        damaged.extend(found.damaged);
        spool.advance(found.next).unwrap();
    }
    panic!("no end");
}

fn files(dir: &TempDir) -> Vec<String> {
    let names = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|n| n.ends_with(".spool")).collect();
    names.sort();
    names
}

/// The only segment there is.
fn segment(dir: &TempDir) -> PathBuf {
    assert_eq!(files(dir).len(), 1);
    dir.path().join(&files(dir)[0])
}

#[test]
fn records_come_back_in_order_through_restarts_and_leave_nothing_behind() {
    let dir = TempDir::new().unwrap();
    let (mut spool, _) = open(&dir);
    assert_eq!(spool.left(), 0);
    spool.append(rows(0..100).iter()).unwrap();
    let first = spool.load(30).unwrap();
    assert_eq!(first.rows, rows(0..30));
    assert_eq!(spool.load(30).unwrap().rows, first.rows, "the cursor has not moved");
    spool.advance(first.next).unwrap();
    assert_eq!(spool.left(), 70);
    drop(spool);
    let (mut spool, torn) = open(&dir);
    assert_eq!((spool.left(), torn), (70, None));
    spool.append(rows(100..150).iter()).unwrap();
    assert_eq!((spool.left(), files(&dir).len()), (120, 2));
    assert_eq!(drain(&mut spool, 30).0, rows(30..150));
    assert_eq!((spool.left(), files(&dir).len()), (0, 0));
    spool.append(rows(150..151).iter()).unwrap();
    assert_eq!(drain(&mut spool, 30).0, rows(150..151));
    drop(spool);
    assert_eq!(open(&dir).0.left(), 0);
}

#[test]
fn segments_are_begun_and_removed_as_they_fill_and_empty() {
    let dir = TempDir::new().unwrap();
    let (mut spool, _) = super::open(dir.path(), 2000).unwrap();
    for n in 0..40 {
        spool.append(rows(n * 5..n * 5 + 5).iter()).unwrap();
    }
    let all = files(&dir).len();
    assert!(all > 5 && spool.left() == 200, "{all}");
    let mut seen = vec![];
    while seen.len() < 100 {
        let found = spool.load(7).unwrap();
        seen.extend(found.rows);
        spool.advance(found.next).unwrap();
        assert_eq!(spool.left(), 200 - seen.len() as u64);
    }
    assert!(files(&dir).len() < all - 2);
    drop(spool);
    let (mut spool, _) = super::open(dir.path(), 2000).unwrap();
    seen.extend(drain(&mut spool, 7).0);
    assert_eq!(seen, rows(0..200));
}

#[test]
fn records_longer_than_a_window_are_read() {
    let dir = TempDir::new().unwrap();
    let (mut spool, _) = open(&dir);
    let long = CdrRow { param: Some("x".repeat(WINDOW + 7).into()), ..row(1) };
    let all = [row(0), long.clone(), row(2), long, row(4)];
    spool.append(all.iter()).unwrap();
    drop(spool);
    let (mut spool, torn) = open(&dir);
    assert_eq!((torn, spool.left()), (None, 5));
    assert_eq!(drain(&mut spool, 100), (all.to_vec(), vec![]));
}

#[test]
fn cut_at_each_byte_of_its_last_record_it_has_all_others_and_says_what_it_cut() {
    let dir = TempDir::new().unwrap();
    let (mut spool, _) = open(&dir);
    spool.append(rows(0..5).iter()).unwrap();
    let whole = fs::metadata(segment(&dir)).unwrap().len();
    spool.append([row(5)].iter()).unwrap();
    drop(spool);
    let (path, bytes) = (segment(&dir), fs::read(segment(&dir)).unwrap());
    for len in whole..bytes.len() as u64 {
        fs::write(&path, &bytes[..len as usize]).unwrap();
        let (mut spool, torn) = open(&dir);
        let cut = torn.map(|t| (t.offset, t.bytes));
        let expected = (len > whole).then(|| (whole, bytes[whole as usize..len as usize].to_vec()));
        assert_eq!(cut, expected, "cut to {len}");
        assert_eq!((fs::metadata(&path).unwrap().len(), spool.left()), (whole, 5));
        // What comes after is not harmed by it.
        spool.append([row(9)].iter()).unwrap();
        let mut loaded = spool.load(100).unwrap();
        assert_eq!((loaded.rows, loaded.damaged), (rows(0..5), vec![]));
        spool.advance(loaded.next).unwrap();
        loaded = spool.load(100).unwrap();
        assert_eq!((loaded.rows, loaded.damaged), (vec![row(9)], vec![]));
        drop(spool);
        for name in files(&dir) {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        fs::remove_file(dir.path().join(CURSOR)).unwrap();
    }
}

#[test]
fn a_bit_flipped_anywhere_in_a_middle_record_costs_that_one_and_it_is_kept_as_bytes() {
    let dir = TempDir::new().unwrap();
    let (mut spool, _) = open(&dir);
    let mut ends = vec![];
    for n in 0..5 {
        spool.append([row(n)].iter()).unwrap();
        ends.push(fs::metadata(segment(&dir)).unwrap().len() as usize);
    }
    drop(spool);
    let (path, bytes) = (segment(&dir), fs::read(segment(&dir)).unwrap());
    for bit in ends[1] * 8..ends[2] * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad).unwrap();
        let (spool, torn) = open(&dir);
        assert_eq!((torn, spool.left()), (None, 5), "bit {bit}");
        let found = spool.load(100).unwrap();
        assert_eq!(found.rows, [row(0), row(1), row(3), row(4)], "bit {bit}");
        let kept: Vec<u8> = found.damaged.iter().flat_map(|d| d.bytes.clone()).collect();
        assert_eq!(kept, bad[ends[1]..ends[2]]);
    }
}

#[test]
fn a_tail_of_zeros_as_a_loss_of_power_leaves_it_is_cut_whole() {
    let dir = TempDir::new().unwrap();
    let (mut spool, _) = open(&dir);
    spool.append(rows(0..5).iter()).unwrap();
    drop(spool);
    let file = File::options().append(true).open(segment(&dir)).unwrap();
    let whole = file.metadata().unwrap().len();
    file.set_len(whole + 3 * WINDOW as u64).unwrap();
    let (mut spool, torn) = open(&dir);
    assert_eq!(torn.map(|t| t.offset), Some(whole));
    assert_eq!((spool.left(), fs::metadata(segment(&dir)).unwrap().len()), (5, whole));
    assert_eq!(drain(&mut spool, 9), (rows(0..5), vec![]));
}

#[test]
fn a_record_of_another_version_is_set_aside() {
    let dir = TempDir::new().unwrap();
    let (mut spool, _) = open(&dir);
    spool.append(rows(0..2).iter()).unwrap();
    drop(spool);
    let path = segment(&dir);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() as u64;
    frame::write(&mut bytes, 0, at, |out| out.extend_from_slice(&[99, 1, 2]));
    fs::write(&path, bytes).unwrap();
    let (mut spool, _) = open(&dir);
    let (found, damaged) = drain(&mut spool, 9);
    assert_eq!((found, damaged.len()), (rows(0..2), 1));
    assert!(damaged[0].why.contains("version 99"), "{}", damaged[0].why);
}

#[test]
fn without_its_cursor_it_is_read_from_the_beginning() {
    let dir = TempDir::new().unwrap();
    let (mut spool, _) = open(&dir);
    spool.append(rows(0..10).iter()).unwrap();
    spool.advance(spool.load(4).unwrap().next).unwrap();
    drop(spool);
    fs::write(dir.path().join(CURSOR), "garbage").unwrap();
    assert_eq!(open(&dir).0.load(100).unwrap().rows, rows(0..10));
}

#[test]
fn one_cursor_replaces_the_other() {
    let dir = TempDir::new().unwrap();
    let (mut spool, _) = open(&dir);
    spool.append(rows(0..10).iter()).unwrap();
    for n in 1..10 {
        spool.advance(spool.load(1).unwrap().next).unwrap();
        drop(spool);
        spool = open(&dir).0;
        assert_eq!(spool.left(), 10 - n);
    }
    drop(spool);
    fs::write(dir.path().join(CURSOR), "strowger-spool-1 1 1 1 00000000\n").unwrap();
    assert_eq!(open(&dir).0.left(), 10);
}

#[test]
fn a_segment_that_somebody_removed_is_told_and_holds_up_no_other() {
    let dir = TempDir::new().unwrap();
    let (mut spool, _) = super::open(dir.path(), 1).unwrap();
    (0..3).for_each(|n| spool.append([row(n)].iter()).unwrap());
    fs::remove_file(dir.path().join(&files(&dir)[0])).unwrap();
    let (found, damaged) = drain(&mut spool, 9);
    assert_eq!(found, rows(1..3));
    assert!(damaged.len() == 1 && damaged[0].why.ends_with("is gone"), "{damaged:?}");
}

#[test]
fn one_process_at_a_time() {
    let dir = TempDir::new().unwrap();
    let (spool, _) = open(&dir);
    let error = super::open(dir.path(), BIG).unwrap_err().to_string();
    assert!(error.contains("is in use by another process; set [cdr] spool_dir"), "{error}");
    drop(spool);
    drop(open(&dir));
}

#[test]
fn a_directory_that_cannot_be_written_is_told_at_the_start_and_while_it_runs() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for inside in ["file", "file/spool"] {
        let error = super::open(&dir.path().join(inside), BIG).unwrap_err().to_string();
        assert!(error.contains("or set [cdr] spool_dir to another directory"), "{error}");
    }
    let at = dir.path().join("spool");
    let (mut spool, _) = super::open(&at, BIG).unwrap();
    fs::rename(&at, dir.path().join("away")).unwrap();
    fs::write(&at, "").unwrap();
    let error = spool.append(rows(0..3).iter()).unwrap_err().to_string();
    assert!(error.contains("or set [cdr] spool_dir to another directory"), "{error}");
    assert_eq!(spool.left(), 0);
    fs::remove_file(&at).unwrap();
    spool.append(rows(0..3).iter()).unwrap();
    assert_eq!(drain(&mut spool, 9).0, rows(0..3));
}

/// A small disk of our own, where this process may have one.
struct Small(TempDir);

impl Small {
    fn mount(bytes: usize) -> Option<Small> {
        let dir = TempDir::new().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"]).arg(dir.path());
        let mounted = mount.stderr(std::process::Stdio::null()).status().is_ok_and(|s| s.success());
        mounted.then_some(Small(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

/// Appends until the disk is full, and goes on when there is room: `make_room` makes it.
fn fill(dir: &Path, make_room: impl FnOnce()) {
    let (mut spool, _) = super::open(dir, 20_000).unwrap();
    let (mut stored, mut error) = (0, None);
    while error.is_none() {
        assert!(stored < 1_000_000, "the disk is not small");
        match spool.append(rows(stored..stored + 10).iter()) {
            Ok(()) => stored += 10,
            Err(e) => error = Some(e.to_string()),
        }
    }
    let error = error.unwrap_or_default();
    assert!(error.ends_with("; make room on its disk"), "{error}");
    assert!(stored > 0);
    for _ in 0..5 {
        assert!(spool.append(rows(0..10).iter()).is_err());
    }
    assert_eq!(spool.left(), stored);
    drop(spool);
    let (mut spool, torn) = super::open(dir, 20_000).unwrap();
    assert_eq!((torn, spool.left()), (None, stored), "nothing old is lost, nothing new half there");
    make_room();
    spool.append(rows(stored..stored + 10).iter()).unwrap();
    assert_eq!(drain(&mut spool, 64), (rows(0..stored + 10), vec![]));
}

#[test]
fn a_full_disk_is_told_and_costs_nothing_that_is_there() {
    let Some(disk) = Small::mount(200_000) else {
        // Where nothing can be mounted, the test with a limit on files is left.
        return;
    };
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![0; 50_000]).unwrap();
    fill(&disk.0.path().join("spool"), || fs::remove_file(&ballast).unwrap());
}

#[test]
fn a_full_disk_makes_room_as_the_database_takes_what_it_has() {
    let Some(disk) = Small::mount(200_000) else { return };
    let (mut spool, _) = super::open(disk.0.path(), 20_000).unwrap();
    let mut stored = 0;
    while spool.append(rows(stored..stored + 10).iter()).is_ok() {
        stored += 10;
    }
    // Not even the cursor can be written at times; the segments that are done go away all the same.
    let mut seen = vec![];
    while (seen.len() as u64) < stored / 2 {
        let found = spool.load(16).unwrap();
        let _ = spool.advance(found.next);
        seen.extend(found.rows);
    }
    spool.append(rows(stored..stored + 10).iter()).unwrap();
    seen.extend(drain(&mut spool, 16).0);
    assert_eq!(seen, rows(0..stored + 10));
}

const CHILD: &str = "STROWGER_SPOOL_LIMITED";

/// The same with a limit on the size of files, which any process may set for itself: run in a child.
#[test]
fn a_file_that_may_not_grow_is_told_and_costs_nothing_that_is_there() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let (mut spool, _) = super::open(Path::new(&dir), BIG).unwrap();
        let mut stored = 0;
        let error = loop {
            match spool.append(rows(stored..stored + 10).iter()) {
                Ok(()) => stored += 10,
                Err(e) => break e.to_string(),
            }
        };
        assert!(error.ends_with("; make room on its disk"), "{error}");
        assert!(stored > 100);
        // What failed is cut off; what comes then has a segment of its own.
        spool.append(rows(stored..stored + 10).iter()).unwrap();
        assert_eq!(drain(&mut spool, 64), (rows(0..stored + 10), vec![]));
        return;
    }
    let dir = TempDir::new().unwrap();
    let name = "control::cdr::spool::tests::a_file_that_may_not_grow_is_told_and_costs_nothing_that_is_there";
    // Without the trap the kernel would end the process; 120 blocks are 60 kB.
    let script = "trap '' XFSZ; ulimit -f 120; exec \"$0\" --exact \"$1\"";
    let mut child = std::process::Command::new("sh");
    child.args(["-c", script]).arg(std::env::current_exe().unwrap()).arg(name);
    let out = child.env(CHILD, dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}
