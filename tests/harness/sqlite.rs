//! Another process that uses the SQLite file of a store.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const LOCK: &str = "import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute('BEGIN EXCLUSIVE')
print('locked', flush=True)
sys.stdin.read()";

/// A process that holds a store's file exclusively. Dropping it ends the process, and so frees
/// the file.
pub struct SqliteLock(Child);

impl SqliteLock {
    /// Locks the file of the store in `folder`.
    pub fn hold(folder: &Path) -> Self {
        let mut python = Command::new("python3");
        python.args(["-c", LOCK]).arg(folder.join("sqlite_key_value.db"));
        let python = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut lock = Self(python.expect("python3 is installed"));
        let mut line = String::new();
        let stdout = lock.0.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it prints a line");
        assert_eq!(line, "locked\n");
        lock
    }
}

impl Drop for SqliteLock {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
