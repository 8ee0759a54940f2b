//! One file per kind: a line that says format and checksum, then the objects. It is whole or it is not used.

use crate::StoreError;
use crate::object::Object;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What the first line begins with; the format's number and the checksum follow.
const TITLE: &str = "# holdfast kept copy, format";
/// Raised when older versions could misread what is written now.
const FORMAT: u32 = 1;

/// The copy of one kind.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    path: PathBuf,
}

/// Makes the directory of the copies.
pub(super) fn make_dir(dir: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(dir).map_err(|cause| StoreError::Io {
        action: "create directory",
        path: dir.to_owned(),
        cause,
    })
}

impl Copy {
    pub(super) fn new(dir: &Path, plural: &str) -> Self {
        Self {
            path: dir.join(format!("{plural}.yaml")),
        }
    }

    /// The objects of the copy, or `None` if there is no copy that can be trusted, which is logged.
    pub(super) async fn read<K: Object>(&self) -> Option<Vec<K>> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || fs::read(path)).await;
        let parsed = match read.unwrap_or_else(|ended| Err(io::Error::other(ended))) {
            Ok(bytes) => parse::<K>(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error.to_string()),
        };
        parsed
            .inspect_err(|problem| {
                let path = self.path.display();
                tracing::error!(%path, problem, "The kept copy cannot be used and counts as absent; it is written anew when the store answers");
            })
            .ok()
    }

    /// Replaces the copy; a failure is logged, for the work goes on without it.
    pub(super) async fn write<K: Object>(&self, objects: &[K]) {
        let path = self.path.clone();
        let text = render(objects);
        let write = move || text.and_then(|text| replace(&path, text.as_bytes()));
        let written = tokio::task::spawn_blocking(write).await;
        if let Err(error) = written.unwrap_or_else(|ended| Err(io::Error::other(ended))) {
            let path = self.path.display();
            tracing::error!(%path, %error, "The kept copy cannot be written; a restart without the API server would not know the newest");
        }
    }
}

fn render<K: Object>(objects: &[K]) -> io::Result<String> {
    let body = serde_yaml::to_string(objects).map_err(io::Error::other)?;
    let sum = crc32c::crc32c(body.as_bytes());
    Ok(format!("{TITLE} {FORMAT}, crc32c {sum:08x}\n{body}"))
}

fn parse<K: Object>(bytes: &[u8]) -> Result<Vec<K>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let (title, body) = text.split_once('\n').ok_or("it has no first line")?;
    let sum = checksum(title)?;
    if sum != crc32c::crc32c(body.as_bytes()) {
        return Err("its checksum is wrong: it is damaged or cut short".to_owned());
    }
    serde_yaml::from_str(body).map_err(|error| error.to_string())
}

/// The checksum that the first line gives, if the format is ours.
fn checksum(title: &str) -> Result<u32, String> {
    let foreign = || format!("its first line is not {TITLE:?} with a number and a checksum");
    let rest = title.strip_prefix(TITLE).ok_or_else(foreign)?;
    let (format, sum) = rest.trim().split_once(", crc32c ").ok_or_else(foreign)?;
    let format: u32 = format.parse().map_err(|_| foreign())?;
    if format != FORMAT {
        return Err(format!(
            "it has format {format}, this version reads {FORMAT}"
        ));
    }
    u32::from_str_radix(sum, 16).map_err(|_| foreign())
}

/// Writes beside, syncs, renames, syncs the directory: after a kill the file is wholly old or wholly new.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}
