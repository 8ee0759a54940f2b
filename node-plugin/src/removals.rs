//! Drives that people have let go of, remembered beyond the life of this process: one file for each pool, below the state
//! directory. Whoever pulls a drive must not find it taken again because the driver was started anew meanwhile.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// For people who look into the directory.
const TEXT: &str =
    "The drive of this pool was let go of by command. `holdfast device add` takes it back.\n";

/// What was let go of, by the names of the pools. Names are those of objects, so they are file names.
#[derive(Debug, Clone)]
pub(crate) struct Removals {
    state_dir: PathBuf,
}

impl Removals {
    pub(crate) fn below(state_dir: &Path) -> Removals {
        Removals {
            state_dir: state_dir.to_owned(),
        }
    }

    pub(crate) fn contains(&self, pool: &str) -> bool {
        self.path(pool).symlink_metadata().is_ok()
    }

    /// Remembers a pool; durable when this returns.
    pub(crate) fn note(&self, pool: &str) -> io::Result<()> {
        fs::create_dir_all(self.dir())?;
        let mut file = File::create(self.path(pool))?;
        file.write_all(TEXT.as_bytes())?;
        file.sync_all()?;
        sync(&self.dir())?;
        sync(&self.state_dir)
    }

    /// Forgets a pool; durable when this returns.
    pub(crate) fn forget(&self, pool: &str) -> io::Result<()> {
        match fs::remove_file(self.path(pool)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| sync(&self.dir())),
        }
    }

    /// The file of a pool.
    pub(crate) fn path(&self, pool: &str) -> PathBuf {
        self.dir().join(pool)
    }

    fn dir(&self) -> PathBuf {
        self.state_dir.join("removed-drives")
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn pool_is_remembered_by_the_next_process_until_it_is_forgotten() {
        let dir = TempDir::new().unwrap();
        let removals = Removals::below(dir.path());
        assert!(!removals.contains("p1"));
        removals.forget("p1").unwrap();
        for _ in 0..2 {
            removals.note("p1").unwrap();
        }
        let next = Removals::below(dir.path());
        assert!(next.contains("p1") && !next.contains("p2"));
        for _ in 0..2 {
            next.forget("p1").unwrap();
        }
        assert!(!removals.contains("p1"));
    }

    #[test]
    fn state_directory_that_cannot_be_written_is_an_error() {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("removed-drives"), "in the way").unwrap();
        assert!(Removals::below(dir.path()).note("p1").is_err());
    }
}
