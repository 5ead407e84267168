//! Containers' output in files of bounded size: the newest part and the part before it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// One file's size; a container never holds more than twice this on the disk.
pub const FILE_LIMIT: u64 = 8 * 1024 * 1024;

/// A log file and its predecessor `NAME.1`.
#[derive(Debug)]
pub struct BoundedLog {
    path: PathBuf,
    file: File,
    size: u64,
}

impl BoundedLog {
    pub fn open(path: PathBuf) -> io::Result<BoundedLog> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(BoundedLog { path, file, size })
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size >= FILE_LIMIT {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            fs::rename(&self.path, older)?;
            *self = BoundedLog::open(std::mem::take(&mut self.path))?;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

/// Copies what a container prints into its log until it and its children are gone. A full disk
/// loses output, never stops the container.
pub fn copy_to_log(output: OwnedFd, path: PathBuf) {
    let mut output = File::from(output);
    let mut log = BoundedLog::open(path.clone()).ok();
    let mut buffer = [0u8; 16 * 1024];
    loop {
        match output.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if log.is_none() {
                    log = BoundedLog::open(path.clone()).ok();
                }
                let written = log.as_mut().map(|log| log.write(&buffer[..length]));
                if matches!(written, Some(Err(_))) {
                    log = None;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_two_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.log");
        let mut log = BoundedLog::open(path.clone()).unwrap();
        let block = vec![b'x'; 1024 * 1024];
        for _ in 0..30 {
            log.write(&block).unwrap();
        }
        let size = fs::metadata(&path).unwrap().len();
        let older = fs::metadata(directory.path().join("app.log.1"))
            .unwrap()
            .len();
        assert!(size <= FILE_LIMIT && older <= FILE_LIMIT, "{size} {older}");
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            2,
            "no third file"
        );
    }
}
