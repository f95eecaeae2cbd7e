//! The files and folders that this project makes: the one place that creates, replaces, renames and removes them.
//!
//! Invariant: no call here follows a symbolic link in the last part of a path ([`edit_document`] alone does), writes
//! into a file that exists, or removes what has a name that its caller does not know. A file appears under its name
//! complete.
#![forbid(unsafe_code)]

mod data;
mod folder;
mod fresh;
mod kind;
mod own;
mod part;
mod place;

pub use data::{new_data, open_data};
pub use folder::{FreshFolder, check_folder, make_folders, new_folder, remove_folder};
pub use fresh::{Fresh, Mode, append_new, edit_document, link_latest, replace};
pub use kind::{Kind, Refusal, check_base, check_target, check_target_below};
pub use own::{PrivateFolder, lock_folder, open_own, own_folder, private_folder, sealed};
pub use part::random;
