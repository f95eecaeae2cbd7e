//! How a configuration is put into force and taken back, for the places where services get their environment.
//!
//! Invariant: every line can be pasted as it is, but for the name of the service, which is written in capitals; values
//! are quoted in each place's own way.

use super::verify;
use serde::Serialize;
use std::fmt::Write;

/// One place: what to do, and how to undo it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// `shell`, `Dockerfile`, `systemd`, `Kubernetes`.
    pub name: &'static str,
    /// Lines that put the configuration into force.
    pub set: String,
    /// Lines that take it back.
    pub undo: String,
}

/// Everything about putting a configuration into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rollout {
    /// The variables.
    pub variables: Vec<(String, String)>,
    /// By place.
    pub places: Vec<Place>,
    /// A shell command that ends with another code than 0, and a sentence, where the variables did not take effect.
    pub verify: String,
    /// What to look out for, sentences.
    pub notes: Vec<String>,
}

/// Libraries that Debian and Ubuntu package: the name that a preload takes, and the package.
const PACKAGES: &[(&str, &str)] = &[
    ("libjemalloc.so.2", "libjemalloc2"),
    ("libmimalloc.so.2.0", "libmimalloc2.0"),
    ("libmimalloc.so.2", "libmimalloc2.0"),
    ("libtcmalloc.so.4", "libgoogle-perftools4 (libgoogle-perftools4t64 since Debian 13)"),
    ("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4 (libtcmalloc-minimal4t64 since Debian 13)"),
];
/// The variable that puts a library before the C library.
const PRELOAD: &str = "LD_PRELOAD";
/// The variable that our handler of NumPy's array data reads.
const NUMPY: &str = "PYALLOC_NUMPY";

/// For the variables of a configuration; `None` where there are none, which is what runs already.
#[must_use]
pub fn rollout(variables: &[(String, String)]) -> Option<Rollout> {
    if variables.is_empty() {
        return None;
    }
    Some(Rollout {
        variables: variables.to_vec(),
        places: vec![shell(variables), dockerfile(variables), systemd(variables), kubernetes(variables)],
        verify: verify::command(variables),
        notes: notes(variables),
    })
}

type Variables<'a> = &'a [(String, String)];

/// One line for each variable.
fn each(variables: Variables<'_>, line: impl Fn(&str, &str) -> String) -> String {
    variables.iter().map(|(name, value)| format!("{}\n", line(name, value))).collect()
}

/// Quoted for a POSIX shell, if it has to be.
pub(super) fn shell_quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

fn shell(variables: Variables<'_>) -> Place {
    let names: Vec<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
    Place {
        name: "shell",
        set: each(variables, |name, value| format!("export {name}={}", shell_quoted(value))),
        undo: format!("unset {}\n", names.join(" ")),
    }
}

fn dockerfile(variables: Variables<'_>) -> Place {
    let quoted = |value: &str| value.replace('\\', r"\\").replace('"', "\\\"").replace('$', r"\$");
    Place {
        name: "Dockerfile",
        set: each(variables, |name, value| format!("ENV {name}=\"{}\"", quoted(value))),
        undo: "# delete these ENV lines, build and deploy again\n".to_owned(),
    }
}

fn systemd(variables: Variables<'_>) -> Place {
    let quoted = |value: &str| value.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%");
    let lines = each(variables, |name, value| format!("Environment=\"{name}={}\"", quoted(value)));
    let file = "/etc/systemd/system/SERVICE.service.d/allocator.conf";
    let restart = "systemctl daemon-reload && systemctl restart SERVICE\n";
    Place {
        name: "systemd",
        set: format!(
            "mkdir -p /etc/systemd/system/SERVICE.service.d\ncat >{file} <<'UNIT'\n[Service]\n{lines}UNIT\n{restart}"
        ),
        undo: format!("rm {file}\n{restart}"),
    }
}

fn kubernetes(variables: Variables<'_>) -> Place {
    // `$(NAME)` would be expanded; two dollars are one.
    let set = each(variables, |name, value| shell_quoted(&format!("{name}={}", value.replace('$', "$$"))));
    let mut manifest = String::from("# or, in the manifest, below the container's `env:`\n");
    for (name, value) in variables {
        let value = serde_json::Value::String(value.replace('$', "$$"));
        let _ = writeln!(manifest, "#   - name: {name}\n#     value: {value}");
    }
    let names = each(variables, |name, _| format!("{name}-"));
    let line = |words: &str| format!("kubectl set env deployment/SERVICE {}\n", words.trim_end().replace('\n', " "));
    Place { name: "Kubernetes", set: line(&set) + &manifest, undo: line(&names) }
}

fn notes(variables: Variables<'_>) -> Vec<String> {
    let mut notes = vec![
        "The variables are read once, when the process starts: restart it, and set them where the process gets its \
         environment, not inside Python."
            .to_owned(),
    ];
    let is_library = |(name, value): &&(String, String)| name == PRELOAD || name == NUMPY && value != "system";
    for library in variables.iter().filter(is_library).flat_map(|(_, value)| value.split([':', ' '])) {
        notes.push(match PACKAGES.iter().find(|(name, _)| *name == library) {
            Some((_, package)) => format!(
                "{library} is in the package {package} of Debian and Ubuntu: RUN apt-get update && apt-get install -y \
                 {}. The loader finds it by this name there; elsewhere give its path.",
                package.split(' ').next().unwrap_or_default()
            ),
            None => format!(
                "{library} has to lie in a folder of the loader; elsewhere give its path. A result keeps no \
                folders, so this \
                 line does not either."
            ),
        });
    }
    if variables.iter().any(|(name, _)| name == PRELOAD) {
        notes.push(
            "A preload that the loader does not find is passed over with one line on the error output. If \
            LD_PRELOAD is \
             set already, put a colon between the two. The library must be for this C library (none of these is for \
             musl) and for the kernel's page size: a jemalloc built for 4 KiB pages ends at once on a kernel \
             with 16 or 64 \
             KiB. Address space limits (RLIMIT_AS) may be too tight for what it reserves."
                .to_owned(),
        );
    }
    if variables.iter().any(|(name, _)| name == NUMPY) {
        notes.push(format!(
            "{NUMPY} is read by pyalloc_numpy.install(), which the program has to call once NumPy may be imported, and \
             in each thread that it starts; `pyalloc-bench numpy-handler -o FOLDER` writes the module. Arrays that are \
             there by then keep what they have."
        ));
    }
    if variables
        .iter()
        .any(|(name, _)| name.starts_with("MALLOC_") && name != "MALLOC_CONF" || name == "GLIBC_TUNABLES")
    {
        notes.push(
            "glibc alone reads MALLOC_* and GLIBC_TUNABLES: on musl (Alpine), or under a preloaded \
        malloc, they do nothing."
                .to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Rollout {
        let variables: Vec<_> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        rollout(&variables).expect("there are variables")
    }

    #[test]
    fn every_place_sets_and_undoes_every_variable() {
        let rollout = of(&[("MALLOC_ARENA_MAX", "2"), ("ARROW_DEFAULT_MEMORY_POOL", "system")]);
        for place in &rollout.places {
            for (name, value) in &rollout.variables {
                assert!(place.set.contains(name.as_str()) && place.set.contains(value.as_str()), "{place:?}");
            }
            assert!(!place.undo.is_empty());
        }
        assert_eq!(rollout.places[0].set, "export MALLOC_ARENA_MAX=2\nexport ARROW_DEFAULT_MEMORY_POOL=system\n");
        assert_eq!(rollout.places[0].undo, "unset MALLOC_ARENA_MAX ARROW_DEFAULT_MEMORY_POOL\n");
        assert!(rollout.places[3].undo.contains("MALLOC_ARENA_MAX- ARROW_DEFAULT_MEMORY_POOL-"), "{rollout:?}");
        assert_eq!(super::rollout(&[]), None);
    }

    #[test]
    fn values_are_quoted_in_each_place_s_own_way() {
        let rollout = of(&[("TCMALLOC_X", "a'b$c\"d%e\\f")]);
        let set = |name: &str| rollout.places.iter().find(|place| place.name == name).map(|place| place.set.as_str());
        assert_eq!(set("shell"), Some("export TCMALLOC_X='a'\\''b$c\"d%e\\f'\n"));
        assert_eq!(set("Dockerfile"), Some("ENV TCMALLOC_X=\"a'b\\$c\\\"d%e\\\\f\"\n"));
        assert!(set("systemd").is_some_and(|text| text.contains("Environment=\"TCMALLOC_X=a'b$c\\\"d%%e\\\\f\"\n")));
        assert!(set("Kubernetes").is_some_and(|text| text.contains("value: \"a'b$$c\\\"d%e\\\\f\"")));
    }

    #[test]
    fn a_library_comes_with_where_to_get_it() {
        let notes = of(&[("LD_PRELOAD", "libjemalloc.so.2:libmine.so")]).notes.join("\n");
        assert!(
            notes.contains("apt-get install -y libjemalloc2.") && notes.contains("libmine.so has to lie"),
            "{notes}"
        );
        let notes = of(&[("PYALLOC_NUMPY", "libjemalloc.so.2")]).notes.join("\n");
        assert!(notes.contains("libjemalloc2.") && notes.contains("pyalloc_numpy.install()"), "{notes}");
        assert!(!of(&[("PYALLOC_NUMPY", "system")]).notes.join("\n").contains("system has to lie"));
    }
}
