//! Core dumps: a process that holds secrets leaves none of its memory behind when it crashes.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Makes this process leave no core dump, and not let other processes of its user read its memory (prctl(2),
/// `PR_SET_DUMPABLE`). Where the kernel does not let it, a warning says so.
pub(crate) fn forbid() {
    // A handler of core dumps that the kernel pipes them into is asked whatever the limit is, but not for this.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "a crash may leave a core dump with secrets in it");
    }
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "the size of core dumps could not be limited");
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn a_process_that_forbids_them_leaves_none() {
        forbid();
        assert_eq!(dumpable_behavior().ok(), Some(DumpableBehavior::NotDumpable));
        assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(0), maximum: Some(0) });
    }
}
