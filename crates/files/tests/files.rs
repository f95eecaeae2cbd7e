//! What is replaced and what is refused, on real files of every kind.
#![allow(clippy::unwrap_used, reason = "tests")]

use files::{Fresh, FreshFolder, Kind, Mode, check_folder, check_target};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Every name in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, bits: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
}

fn known(name: &str) -> bool {
    ["a.json", "b.jsonl"].contains(&name)
}

/// What `path` becomes a target of, refused before and while it is written; what is there stays.
fn is_refused(path: &Path, kind: Kind, part: &str) {
    let before = (names(path.parent().unwrap()), fs::symlink_metadata(path).unwrap().file_type());
    let refusal = check_target(path, kind).unwrap_err().to_string();
    assert!(refusal.contains(part) && refusal.ends_with('.'), "{refusal}");
    let error = files::replace(path, kind, Mode::Usual, b"new").unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
    assert_eq!(before, (names(path.parent().unwrap()), fs::symlink_metadata(path).unwrap().file_type()));
}

#[test]
fn the_start_of_a_trace_is_that_of_the_crate() {
    let mut bytes = Vec::new();
    trace::TraceWriter::new(&mut bytes, &trace::Metadata::default(), trace::WriteOptions::default())
        .unwrap()
        .finish()
        .unwrap();
    let folder = folder();
    let path = folder.path().join("a.trace");
    fs::write(&path, bytes).unwrap();
    check_target(&path, Kind::Trace).unwrap();
    is_refused(&path, Kind::Json, "is not a JSON file");
}

#[test]
fn absent_empty_and_older_files_of_the_kind_are_replaced() {
    let folder = folder();
    let path = folder.path().join("a.trace");
    for bytes in [&b""[..], b"\x89PyAT\r\n\x1a and more"] {
        fs::write(&path, bytes).unwrap();
        check_target(&path, Kind::Trace).unwrap();
        files::replace(&path, Kind::Trace, Mode::Usual, b"\x89PyAT\r\n\x1a new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"\x89PyAT\r\n\x1a new");
    }
    let absent = folder.path().join("b.json");
    check_target(&absent, Kind::Json).unwrap();
    assert!(!absent.exists());
    files::replace(&absent, Kind::Json, Mode::Usual, b"{}").unwrap();
    is_refused(&absent, Kind::Json, "is not a JSON file");
    fs::write(&absent, "{\n  \"schema\": 1").unwrap();
    check_target(&absent, Kind::Json).unwrap();
    assert_eq!(names(folder.path()), ["a.trace", "b.json"]);
}

#[test]
fn what_is_something_else_is_refused_and_stays() {
    let folder = folder();
    let (text, link) = (folder.path().join("notes.txt"), folder.path().join("link"));
    fs::write(&text, "mine").unwrap();
    symlink(&text, &link).unwrap();
    symlink("nowhere", folder.path().join("dangling")).unwrap();
    fs::create_dir(folder.path().join("folder")).unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    for (name, part) in [
        ("link", "is a symbolic link"),
        ("dangling", "is a symbolic link"),
        ("folder", "is a folder"),
        ("pipe", "is a named pipe"),
        ("socket", "is a socket"),
    ] {
        is_refused(&folder.path().join(name), Kind::Any, part);
    }
    is_refused(&text, Kind::Trace, "is not a trace");
    is_refused(&text, Kind::Png, "is not a PNG image");
    assert_eq!(fs::read_to_string(&text).unwrap(), "mine");
    assert!(!folder.path().join("nowhere").exists() && fs::metadata(&pipe).unwrap().file_type().is_fifo());
    let missing = check_target(&folder.path().join("none/a.trace"), Kind::Trace).unwrap_err().to_string();
    assert!(missing.contains("does not exist"), "{missing}");
    assert!(check_target(Path::new("/"), Kind::Any).is_err() && check_target(Path::new(".."), Kind::Any).is_err());
}

#[test]
fn a_folder_that_is_yet_to_be_made_needs_a_writable_one_above() {
    let folder = folder();
    let deep = folder.path().join("deep/er/a.svg");
    files::check_target_below(&deep, Kind::Svg).unwrap();
    files::check_base(&deep).unwrap();
    fs::write(folder.path().join("deep"), "mine").unwrap();
    for refusal in [files::check_target_below(&deep, Kind::Svg), files::check_base(&folder.path().join("deep"))] {
        assert!(refusal.unwrap_err().to_string().contains("is a file, not a folder"));
    }
    assert_eq!(names(folder.path()), ["deep"]);
}

#[test]
fn a_target_that_changes_while_it_is_written_is_refused() {
    let folder = folder();
    let (path, victim) = (folder.path().join("a"), folder.path().join("victim"));
    fs::write(&victim, "mine").unwrap();
    let mut fresh = Fresh::beside(&path, Kind::Any, Mode::Usual).unwrap();
    fresh.write_all(b"new").unwrap();
    symlink(&victim, &path).unwrap();
    assert!(fresh.put().unwrap_err().to_string().contains("symbolic link"));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    assert_eq!(names(folder.path()), ["a", "victim"]);
}

#[test]
fn an_unfinished_file_is_removed_unless_it_is_being_written() {
    let folder = folder();
    let path = folder.path().join("a");
    let living = Fresh::beside(&path, Kind::Any, Mode::Usual).unwrap();
    let left = folder.path().join(".a.0123456789abcdef.part");
    fs::write(&left, "half").unwrap();
    fs::write(folder.path().join(".b.0123456789abcdef.part"), "another's").unwrap();
    let second = Fresh::beside(&path, Kind::Any, Mode::Usual).unwrap();
    assert!(!left.exists());
    assert_eq!(names(folder.path()).len(), 3, "{:?}", names(folder.path()));
    drop(second);
    living.put().unwrap();
    assert_eq!(names(folder.path()), [".b.0123456789abcdef.part", "a"]);
}

#[test]
fn permissions_are_kept_or_those_asked_for() {
    let folder = folder();
    let path = folder.path().join("a");
    fs::write(&path, "old").unwrap();
    set_mode(&path, 0o600);
    files::replace(&path, Kind::Any, Mode::Usual, b"new").unwrap();
    assert_eq!(mode(&path), 0o600);
    files::replace(&path, Kind::Any, Mode::Exact(0o644), b"new").unwrap();
    assert_eq!(mode(&path), 0o644);
}

#[test]
fn a_document_is_edited_through_its_link() {
    let folder = folder();
    let (path, link) = (folder.path().join("README.md"), folder.path().join("link.md"));
    fs::write(&path, "old").unwrap();
    symlink("README.md", &link).unwrap();
    files::edit_document(&link, b"new").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
}

#[test]
fn what_is_made_once_is_never_opened_again() {
    let folder = folder();
    let path = folder.path().join("runs");
    let mut file = files::append_new(&path).unwrap();
    file.write_all(b"one").unwrap();
    assert!(files::append_new(&path).is_err());
    symlink("elsewhere", folder.path().join("planted")).unwrap();
    assert!(files::append_new(&folder.path().join("planted")).is_err());
    files::new_folder(&folder.path().join("new")).unwrap();
    assert!(files::new_folder(&folder.path().join("new")).is_err());
    assert!(files::new_folder(&folder.path().join("planted")).is_err());
}

#[test]
fn the_link_replaces_links_alone() {
    let folder = folder();
    let link = folder.path().join("latest");
    symlink("old", folder.path().join(".latest.0123456789abcdef.part")).unwrap();
    for to in ["one", "two"] {
        files::link_latest(&link, to.as_ref()).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), PathBuf::from(to));
    }
    assert_eq!(names(folder.path()), ["latest"]);
    fs::remove_file(&link).unwrap();
    fs::write(&link, "mine").unwrap();
    assert!(files::link_latest(&link, "three".as_ref()).is_err());
    assert_eq!(fs::read_to_string(&link).unwrap(), "mine");
}

#[test]
fn a_folder_is_replaced_whole_and_only_by_its_own_kind() {
    let folder = folder();
    let kept = folder.path().join("kept");
    for text in ["one", "two"] {
        check_folder(&kept, known).unwrap();
        let fresh = FreshFolder::beside(&kept, known).unwrap();
        fresh.write("a.json", text.as_bytes()).unwrap();
        fresh.put().unwrap();
        assert_eq!(fs::read_to_string(kept.join("a.json")).unwrap(), text);
        assert_eq!(names(folder.path()), ["kept"]);
    }
    fs::create_dir(kept.join("b.jsonl")).unwrap();
    for path in [kept.clone(), folder.path().join("file"), folder.path().join("link")] {
        let _ = fs::write(folder.path().join("file"), "mine");
        let _ = symlink("kept", folder.path().join("link"));
        let refusal = check_folder(&path, known).unwrap_err().to_string();
        assert!(refusal.contains("Choose another name"), "{refusal}");
        assert!(FreshFolder::beside(&path, known).is_err());
    }
    assert_eq!(names(folder.path()), ["file", "kept", "link"]);
    assert_eq!(names(&kept), ["a.json", "b.jsonl"]);
}

#[test]
fn a_folder_that_changes_while_it_is_written_stays() {
    let folder = folder();
    let kept = folder.path().join("kept");
    let fresh = FreshFolder::beside(&kept, known).unwrap();
    fresh.write("a.json", b"new").unwrap();
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("thesis.tex"), "mine").unwrap();
    assert!(fresh.put().unwrap_err().to_string().contains("thesis.tex"));
    assert_eq!((names(folder.path()), names(&kept)), (vec!["kept".to_owned()], vec!["thesis.tex".to_owned()]));
}

#[test]
fn what_a_killed_process_left_of_a_folder_goes_with_known_files_alone() {
    let folder = folder();
    let (kept, left) = (folder.path().join("kept"), folder.path().join(".kept.0123456789abcdef.part"));
    let foreign = folder.path().join(".kept.fedcba9876543210.part");
    for (part, file) in [(&left, "a.json"), (&foreign, "thesis.tex")] {
        fs::create_dir(part).unwrap();
        fs::write(part.join(file), "half").unwrap();
    }
    let living = FreshFolder::beside(&kept, known).unwrap();
    assert!(!left.exists() && foreign.join("thesis.tex").exists());
    let second = FreshFolder::beside(&kept, known).unwrap();
    assert_eq!(names(folder.path()).len(), 3);
    drop((living, second));
    assert_eq!(names(folder.path()), [".kept.fedcba9876543210.part"]);
}

#[test]
fn a_folder_is_removed_with_known_files_alone() {
    let folder = folder();
    let path = folder.path().join("raw");
    fs::create_dir(&path).unwrap();
    for name in ["a.json", "b.jsonl", "thesis.tex"] {
        fs::write(path.join(name), "x").unwrap();
    }
    let error = files::remove_folder(&path, known).unwrap_err().to_string();
    assert!(error.contains("thesis.tex"), "{error}");
    assert_eq!(names(&path), ["thesis.tex"]);
    symlink(&path, folder.path().join("link")).unwrap();
    assert!(files::remove_folder(&folder.path().join("link"), |_| true).is_err());
    files::remove_folder(&path, |name| name == "thesis.tex").unwrap();
    assert!(!path.exists());
}

#[test]
fn private_folders_are_random_and_closed() {
    let folder = folder();
    let one = files::private_folder(folder.path(), ".raw-").unwrap();
    assert_ne!(one, files::private_folder(folder.path(), ".raw-").unwrap());
    assert_eq!(mode(&one), 0o700);
    assert!(one.is_absolute() && one.file_name().unwrap().to_string_lossy().starts_with(".raw-"));
    assert!(files::private_folder(&folder.path().join("none"), "x").is_err());
}

#[test]
fn a_private_folder_goes_with_its_owner_and_the_next_removes_what_was_left() {
    let folder = folder();
    let left = folder.path().join("lib-0123456789abcdef");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("a.json"), "x").unwrap();
    fs::create_dir(folder.path().join("lib-zone")).unwrap();
    let one = files::PrivateFolder::make(folder.path(), "lib-", known).unwrap();
    let two = files::PrivateFolder::make(folder.path(), "lib-", known).unwrap();
    assert!(!left.exists() && one.path().exists());
    fs::write(one.path().join("a.json"), "x").unwrap();
    fs::write(two.path().join("thesis.tex"), "mine").unwrap();
    let kept = two.path().to_owned();
    drop((one, two));
    assert_eq!(names(folder.path()), [kept.file_name().unwrap().to_str().unwrap(), "lib-zone"]);
    set_mode(folder.path(), 0o777);
    assert!(files::PrivateFolder::make(folder.path(), "lib-", known).is_err());
    set_mode(folder.path(), 0o1777);
    assert!(files::PrivateFolder::make(folder.path(), "lib-", known).is_ok());
}

#[test]
fn own_folders_cannot_be_changed_by_others() {
    let folder = folder();
    let path = folder.path().join("deep/cache");
    let own = files::own_folder(&path).unwrap();
    assert_eq!((mode(&path), mode(&folder.path().join("deep"))), (0o700, 0o700));
    symlink(&path, folder.path().join("link")).unwrap();
    assert_eq!(files::own_folder(&folder.path().join("link")).unwrap(), own);
    let refused = |why: &str| {
        let error = files::own_folder(&path).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    set_mode(&path, 0o770);
    refused("cache can be written to by others");
    set_mode(&path, 0o755);
    files::own_folder(&path).unwrap();
    set_mode(&folder.path().join("deep"), 0o777);
    refused("deep can be written to by others");
    set_mode(&folder.path().join("deep"), 0o1777);
    files::own_folder(&path).unwrap();
}

#[test]
fn own_files_are_regular_and_closed_to_others() {
    let folder = folder();
    let path = folder.path().join("library");
    fs::write(&path, "code").unwrap();
    let mut text = String::new();
    files::open_own(&path).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "code");
    symlink(&path, folder.path().join("link")).unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for other in [folder.path().join("link"), folder.path().to_path_buf(), pipe] {
        assert!(files::open_own(&other).is_err(), "{}", other.display());
    }
    set_mode(&path, 0o666);
    assert!(files::open_own(&path).unwrap_err().to_string().contains("by others"));
}

/// With rights of root: what belongs to another user is not taken for ours.
#[test]
fn what_belongs_to_another_user_is_refused() {
    let folder = folder();
    let path = folder.path().join("library");
    fs::write(&path, "code").unwrap();
    let cache = folder.path().join("cache");
    fs::create_dir_all(cache.join("inner")).unwrap();
    let chown = |path: &Path| Command::new("chown").arg("65534").arg(path).status().unwrap().success();
    if File::open(&path).unwrap().metadata().unwrap().uid() != 0 || !chown(&path) || !chown(&cache) {
        println!("NOT RUN: only root can give a file to another user");
        return;
    }
    assert!(files::open_own(&path).unwrap_err().to_string().contains("another user"));
    assert!(files::own_folder(&cache).unwrap_err().to_string().contains("another user"));
    let error = files::own_folder(&cache.join("inner")).unwrap_err().to_string();
    assert!(error.contains("cache belongs to another user"), "{error}");
    let left = folder.path().join(".a.0123456789abcdef.part");
    fs::write(&left, "another's").unwrap();
    assert!(chown(&left));
    files::replace(&folder.path().join("a"), Kind::Any, Mode::Usual, b"new").unwrap();
    assert!(left.exists());
}
