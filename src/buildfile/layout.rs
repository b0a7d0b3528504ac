//! The key `layout`: where the image has the workspace and the virtual environment.

use std::fmt;

use super::node::Node;
use super::shape::Decoder;

/// Which release of the original tool an image is laid out as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Before 22.11: the workspace and the virtual environment are two folders.
    #[default]
    Split,
    /// Since 22.11: both are one folder, which is the root of the context as well, and `/workspace` links there.
    Pyats,
}

/// The folder of the workspace that holds the files of the build.
pub const INSTALLATION: &str = "installation";

impl Layout {
    /// Each of them.
    pub(super) const ALL: [Self; 2] = [Self::Split, Self::Pyats];

    /// `$WORKSPACE` in the image.
    #[must_use]
    pub const fn workspace(self) -> &'static str {
        match self {
            Self::Split => "/workspace",
            Self::Pyats => "/pyats",
        }
    }

    /// `$VIRTUAL_ENV` in the image.
    #[must_use]
    pub const fn virtual_env(self) -> &'static str {
        match self {
            Self::Split => "/venv",
            Self::Pyats => "/pyats",
        }
    }

    /// A link of the image, and what it links to.
    #[must_use]
    pub const fn link(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Split => None,
            Self::Pyats => Some(("/workspace", "/pyats")),
        }
    }

    /// The variables that the image is built around.
    #[must_use]
    pub const fn variables(self) -> [(&'static str, &'static str); 2] {
        [
            ("WORKSPACE", self.workspace()),
            ("VIRTUAL_ENV", self.virtual_env()),
        ]
    }

    /// A file of the build in the image.
    #[must_use]
    pub fn installation(self, name: &str) -> String {
        format!("{}/{INSTALLATION}/{name}", self.workspace())
    }

    /// The Debian packages of an image that asks for none by name: what a job reaches its devices with, and an init.
    #[must_use]
    pub const fn system_packages(self) -> &'static [&'static str] {
        match self {
            Self::Split => &["iputils-ping", "openssh-client", "telnet", "tini"],
            Self::Pyats => &[
                "git",
                "iputils-ping",
                "net-tools",
                "openssh-client",
                "telnet",
                "tini",
            ],
        }
    }

    /// Whether this Debian package is a default of a layout.
    #[must_use]
    pub fn is_default_package(name: &str) -> bool {
        let mut layouts = Self::ALL.into_iter();
        layouts.any(|layout| layout.system_packages().contains(&name))
    }

    /// The Python packages that every image has.
    #[must_use]
    pub const fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Split => &[],
            Self::Pyats => &["psutil"],
        }
    }

    /// A path of the image that may lie in the workspace, relative to that.
    #[must_use]
    pub fn in_workspace(self, path: &str) -> Option<&str> {
        ["/workspace", self.workspace()]
            .iter()
            .find_map(|root| path.strip_prefix(root)?.strip_prefix('/'))
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Split => "split",
            Self::Pyats => "pyats",
        })
    }
}

impl Decoder<'_, '_> {
    pub(super) fn layout(&mut self, node: &Node) -> Option<Layout> {
        let text = self.line(node, "layout")?;
        let named = |layout: &Layout| layout.to_string() == text;
        let layout = Layout::ALL.into_iter().find(named);
        if layout.is_none() {
            self.problem(node.span, "`layout` must be `split` or `pyats`", "");
        }
        layout
    }
}
