//! `numpy-handler`: writes NumPy's data-memory handler and the Python module that installs it.
//!
//! Invariant: writes those two files and nothing else; what they are is compiled into this program.

use super::out::{Stop, print};
use clap::Args;
use std::path::PathBuf;

/// Arguments of `numpy-handler`.
#[derive(Args, Clone, Debug)]
pub(super) struct NumpyHandlerArgs {
    /// Folder for pyalloc_numpy.py and libpyalloc_numpy.so: the program's own, or one that PYTHONPATH names
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
}

/// Writes the files and says how they are used.
pub(super) fn run(args: &NumpyHandlerArgs) -> Result<(), Stop> {
    let files = recorder::write_numpy_handler(&args.output)
        .map_err(|error| Stop::Unusable(format!("numpy-handler: {error}")))?;
    for file in &files {
        print(&format!("{}\n", file.display()))?;
    }
    print(
        "In the program, once NumPy may be imported:\n  import pyalloc_numpy; pyalloc_numpy.install()\nThen \
         PYALLOC_NUMPY=/path/of/an/allocator.so says where new arrays take their data; PYALLOC_NUMPY=system is for \
         recording.\n",
    )
}
