//! Files into memory, with a bound.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use super::{
    node::{MAX_FILE_BYTES, too_large},
    problem::Problem,
};

/// Reads a file, but not an endless one. It may be a pipe, and then this waits for its writer.
pub fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    contents(path, file)
}

/// Reads a regular file. Never waits for a pipe's writer.
pub fn read_regular(path: &Path) -> Result<Vec<u8>, Problem> {
    contents(path, open(path, kind)?)
}

/// Reads a file that an agent acts on: a regular one, which no stranger can change.
pub fn read_trusted(path: &Path) -> Result<Vec<u8>, Problem> {
    contents(path, open(path, |metadata| kind(metadata).or_else(|| writers(metadata)))?)
}

fn open(path: &Path, distrust: impl Fn(&Metadata) -> Option<String>) -> Result<File, Problem> {
    // O_NONBLOCK: opening a FIFO that nobody writes would wait; regular files do not care.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(|error| unreadable(path, &error))?;
    // Of the open file: what the name stands for may change at any time.
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    distrust(&metadata).map_or(Ok(file), |message| Err(refuse(path, message)))
}

/// What is wrong with its kind.
fn kind(metadata: &Metadata) -> Option<String> {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => return None,
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Some(format!("is {what}; expected a regular file"))
}

/// What is wrong with who may write it.
fn writers(metadata: &Metadata) -> Option<String> {
    const OTHERS_WRITE: u32 = 0o002;
    let mode = metadata.permissions().mode() & 0o7777;
    (mode & OTHERS_WRITE != 0).then(|| {
        format!(
            "is writable by every user (mode {mode:04o}), so anybody could steer the agent; \
             `chmod o-w` it"
        )
    })
}

fn contents(path: &Path, file: File) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(path, &error))?;
    match bytes.len() as u64 > MAX_FILE_BYTES {
        true => Err(refuse(path, too_large())),
        false => Ok(bytes),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    refuse(path, format!("cannot be read: {error}"))
}

fn refuse(path: &Path, message: String) -> Problem {
    Problem::whole(path.display().to_string(), message)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    fn said(path: &Path) -> String {
        read_trusted(path).expect_err("refused").to_string()
    }

    #[test]
    fn a_pipe_without_writer_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("rules.yaml");
        mkfifo(&pipe, Mode::S_IRUSR).unwrap();
        assert!(said(&pipe).ends_with("is a pipe; expected a regular file"), "{}", said(&pipe));
        assert!(said(directory.path()).contains("is a directory"));
        assert!(said(Path::new("/dev/zero")).contains("is a device"));
    }

    #[test]
    fn a_file_that_everybody_can_write_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rules.yaml");
        fs::write(&path, "a: 1").unwrap();
        for (mode, good) in [(0o600, true), (0o664, true), (0o666, false), (0o602, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_trusted(&path).is_ok(), good, "{mode:o}");
        }
        assert!(said(&path).contains("(mode 0602)") && said(&path).contains("chmod o-w"));
        assert_eq!(read(&path).unwrap(), b"a: 1");
    }

    #[test]
    fn an_endless_file_is_not_read_to_its_end() {
        assert!(read(Path::new("/dev/zero")).unwrap_err().to_string().contains("too large"));
    }
}
