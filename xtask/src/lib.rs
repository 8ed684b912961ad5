//! The builder: from locked Debian packages and this workspace to one disk image.
