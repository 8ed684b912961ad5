//! What a component's service may be allowed beyond an ordinary user: the names of capabilities(7).

use serde::Deserialize;

/// A Linux capability that a component may ask for.
///
/// Not among them, whatever a package would like: loading modules, mounts, raw I/O, tracing,
/// rebooting, the clock; and dac-read-search, which opens files by handle, also those that are not bound into the component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Changing owners of files.
    Chown,
    /// Ignoring permissions of files.
    DacOverride,
    /// Acting as the owner of every file.
    Fowner,
    /// Keeping set-id bits.
    Fsetid,
    /// Signals to every process of the component.
    Kill,
    /// Ports below 1024.
    NetBindService,
    /// Any group.
    Setgid,
    /// Any user.
    Setuid,
    /// Another root directory.
    SysChroot,
    /// Another priority.
    SysNice,
    /// Exceeding resource limits.
    SysResource,
}
