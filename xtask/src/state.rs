//! A directory for what programs keep while they run: `target/runs/<pid>`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::env::Env;

/// The directory; it is removed with this.
pub(crate) struct State(PathBuf);

impl State {
    /// Makes it, and removes those of runs that were killed.
    pub(crate) fn create(env: &Env) -> Result<Self> {
        let all = env.target.join("runs");
        for entry in all.read_dir().into_iter().flatten().flatten() {
            if !Path::new("/proc").join(entry.file_name()).exists() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let state = Self(all.join(std::process::id().to_string()));
        fs::create_dir_all(&state.0)?;
        Ok(state)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
