//! Where pressure can be staged: a control group of our own below the one we run in.
//!
//! Nothing of a group that somebody else made is changed. Where that is not possible the test is skipped, and says why.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::parse;

/// Folders of this test's groups and files begin with it.
pub(crate) const NAME: &str = "locara-pressure-";

/// Why nothing can be staged here.
#[derive(Debug)]
pub(crate) struct Skip(pub(crate) String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SKIPPED: {}. Nothing was tested.", self.0)
    }
}

/// Which interface limits memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// Where groups can be made.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) version: Version,
    /// Groups that limit memory are made in it.
    pub(crate) memory: PathBuf,
    /// With version 1: groups that tell of stalls are made in it, as every service has one under systemd.
    pub(crate) stalls: Option<PathBuf>,
}

impl Place {
    /// Looks around, and changes nothing that stays.
    pub(crate) fn find() -> Result<Self, Skip> {
        if !rustix::process::geteuid().is_root() {
            return Err(Skip("control groups and swap need root, and this is another user".to_owned()));
        }
        let groups = fs_err::read_to_string("/proc/self/cgroup").map_err(|error| Skip(error.to_string()))?;
        Self::below(&groups, Path::new("/sys/fs/cgroup"))
    }

    /// Below our own groups, which `groups` (`/proc/self/cgroup`) names, where hierarchies are mounted at `mount`.
    pub(crate) fn below(groups: &str, mount: &Path) -> Result<Self, Skip> {
        let is_group = |folder: &Path| folder.join("cgroup.procs").is_file();
        if let Some(own) = parse::v1_group(groups, "memory") {
            let memory = mount.join("memory").join(own);
            probe(&memory)?;
            if !memory.join("memory.memsw.limit_in_bytes").is_file() {
                return Err(Skip(format!("{} does not count swap (boot with swapaccount=1)", memory.display())));
            }
            let stalls = parse::v2_group(groups).map(|own| mount.join("unified").join(own));
            let stalls = stalls.filter(|folder| is_group(folder) && probe(folder).is_ok());
            return Ok(Self { version: Version::V1, memory, stalls });
        }
        let own = parse::v2_group(groups).ok_or_else(|| Skip("there are no control groups".to_owned()))?;
        // A group with processes in it has no children with controllers: the first one above that has them will do.
        let passes_on = |folder: &PathBuf| {
            let controllers = fs_err::read_to_string(folder.join("cgroup.subtree_control")).unwrap_or_default();
            controllers.split_whitespace().any(|controller| controller == "memory")
        };
        let above = Path::new(own).ancestors().map(|own| mount.join(own)).find(passes_on);
        let memory = above.ok_or_else(|| Skip(format!("no memory controller reaches the group /{own}")))?;
        probe(&memory)?;
        Ok(Self { version: Version::V2, memory, stalls: None })
    }
}

/// Whether a group can be made in `folder`.
fn probe(folder: &Path) -> Result<(), Skip> {
    let group = folder.join(format!("{NAME}probe-{}", std::process::id()));
    let made = fs_err::create_dir(&group).and_then(|()| fs_err::remove_dir(&group));
    made.map_err(|error| Skip(format!("no control group can be made here: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf, text: &str) {
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    #[test]
    fn a_hybrid_machine_limits_with_version_1_and_tells_stalls_with_version_2() {
        let mount = tempfile::tempdir().unwrap();
        write(mount.path().join("memory/a/b/memory.memsw.limit_in_bytes"), "1\n");
        write(mount.path().join("unified/cgroup.procs"), "1\n");
        let place = Place::below("4:memory:/a/b\n0::/\n", mount.path()).unwrap();
        assert_eq!(place.version, Version::V1);
        assert_eq!(place.memory, mount.path().join("memory/a/b"));
        assert_eq!(place.stalls, Some(mount.path().join("unified")));
    }

    #[test]
    fn version_2_takes_the_nearest_group_that_passes_the_controller_on() {
        let mount = tempfile::tempdir().unwrap();
        write(mount.path().join("cgroup.subtree_control"), "cpu memory\n");
        write(mount.path().join("a/cgroup.subtree_control"), "memory pids\n");
        write(mount.path().join("a/b/cgroup.subtree_control"), "\n");
        let place = Place::below("0::/a/b\n", mount.path()).unwrap();
        assert_eq!((place.version, place.memory), (Version::V2, mount.path().join("a")));
    }

    #[test]
    fn a_skip_is_loud_and_says_why() {
        let mount = tempfile::tempdir().unwrap();
        let told = |groups: &str| Place::below(groups, mount.path()).unwrap_err().to_string();
        for groups in ["", "4:memory:/gone\n", "0::/gone\n"] {
            let text = told(groups);
            assert!(text.starts_with("SKIPPED: ") && text.ends_with("Nothing was tested."), "{text}");
        }
        assert!(told("4:memory:/gone\n").contains("gone"), "names the folder");
        assert!(told("0::/gone\n").contains("no memory controller reaches the group /gone"));
        write(mount.path().join("memory/mute/cgroup.procs"), "");
        assert!(told("4:memory:/mute\n").contains("does not count swap"));
    }
}
