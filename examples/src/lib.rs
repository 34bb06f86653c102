//! The example programs stand beside this file; see README.md.
