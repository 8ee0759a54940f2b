//! Files that are wholly old or wholly new after a kill: write beside, sync, rename, sync the directory.

use crate::StoreError;
use holdfast_api::check_object_name;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What manifests end with.
pub(super) const SUFFIX: &str = ".yaml";
/// What a file being written begins with. No object name begins so.
const HALF_WRITTEN: &str = ".new-";
const LOCK: &str = "lock";
/// A process that was killed holds its lock until the kernel is done with it, and its successor may be there before that.
const PATIENCE: Duration = Duration::from_secs(1);
/// Short, for guests are waiting.
const RETRY: Duration = Duration::from_millis(1);

/// The directory that holds one directory per kind.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
}

impl Folder {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Takes the directory for this process, makes a directory per kind and clears half-written files.
    pub(super) fn prepare(&self, plurals: &[String]) -> Result<File, StoreError> {
        make_dir(&self.dir)?;
        let lock = self.lock()?;
        for plural in plurals {
            let dir = self.dir.join(plural);
            make_dir(&dir)?;
            for name in names(&dir)? {
                if name.starts_with(HALF_WRITTEN) {
                    let path = dir.join(name);
                    fs::remove_file(&path).map_err(failed("remove half-written", &path))?;
                }
            }
        }
        sync(&self.dir)?;
        Ok(lock)
    }

    fn lock(&self) -> Result<File, StoreError> {
        let path = self.dir.join(LOCK);
        let file = File::create(&path).map_err(failed("open", &path))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::InUse {
                        dir: self.dir.clone(),
                    });
                }
                Err(TryLockError::Error(cause)) => return Err(failed("lock", &path)(cause)),
            }
            std::thread::sleep(RETRY);
        }
    }

    /// The names of the files of a kind, sorted; files being written left out.
    pub(super) fn files(&self, plural: &str) -> Result<Vec<String>, StoreError> {
        let mut files = names(&self.dir.join(plural))?;
        files.retain(|name| !name.starts_with(HALF_WRITTEN));
        files.sort_unstable_by(|a, b| stem(a).cmp(stem(b)));
        Ok(files)
    }

    /// Where the manifest of an object is.
    pub(super) fn path(&self, plural: &str, name: &str) -> PathBuf {
        self.dir.join(plural).join(format!("{name}{SUFFIX}"))
    }

    /// The text of a manifest, or `None` if there is none.
    pub(super) fn read(&self, plural: &str, name: &str) -> Result<Option<String>, StoreError> {
        check_object_name(name)?;
        let path = self.path(plural, name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(StoreError::Damaged {
                path,
                problem: "it is not UTF-8 text".to_owned(),
            }),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Writes a manifest; durable on return.
    pub(super) fn write(&self, plural: &str, name: &str, text: &[u8]) -> Result<(), StoreError> {
        check_object_name(name)?;
        let dir = self.dir.join(plural);
        let (beside, path) = (
            dir.join(format!("{HALF_WRITTEN}{name}")),
            self.path(plural, name),
        );
        let mut file = File::create(&beside).map_err(failed("create", &beside))?;
        file.write_all(text).map_err(failed("write", &beside))?;
        file.sync_all().map_err(failed("sync", &beside))?;
        fs::rename(&beside, &path).map_err(failed("replace", &path))?;
        sync(&dir)
    }

    /// Removes a manifest; durable on return.
    pub(super) fn remove(&self, plural: &str, name: &str) -> Result<(), StoreError> {
        check_object_name(name)?;
        let path = self.path(plural, name);
        fs::remove_file(&path).map_err(failed("remove", &path))?;
        sync(&self.dir.join(plural))
    }
}

fn make_dir(dir: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(dir).map_err(failed("create directory", dir))
}

fn names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    read().map_err(failed("list", dir))
}

fn stem(file: &str) -> &str {
    file.strip_suffix(SUFFIX).unwrap_or(file)
}

fn sync(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync directory", dir))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |cause| StoreError::Io {
        action,
        path,
        cause,
    }
}
