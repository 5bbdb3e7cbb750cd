//! A small disk of a test's own, where this user may have one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A tmpfs, unmounted when dropped.
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts one at that directory, which is made, with those options; `None` where this user may not.
    pub fn mount(at: &Path, options: &str) -> Option<Disk> {
        std::fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(at).stderr(Stdio::null());
        mount.status().is_ok_and(|s| s.success()).then(|| Disk(at.to_owned()))
    }

    /// Takes so many bytes of it, or all that there are.
    pub fn fill(&self, bytes: usize) {
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        let mut left = bytes;
        while left > 0 {
            let piece = left.min(4096);
            if ballast.write_all(&vec![0; piece]).is_err() {
                return;
            }
            left -= piece;
        }
    }

    /// What was filled is empty again.
    pub fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
