//! Call sites: return addresses become module base names and offsets.
//!
//! Invariant: entry 0 is "unknown"; an address that lies in no known mapping is unknown, never guessed.

use crate::library::HANDLER_FILE;
use crate::reader::Mapping;
use std::collections::HashMap;
use trace::{Domain, NumpyData, Site};

/// The table of call sites as it grows.
pub(crate) struct Sites {
    mappings: Vec<Mapping>,
    by_address: HashMap<u64, u32>,
    by_site: HashMap<Site, u32>,
    list: Vec<Site>,
    /// The module whose requests are NumPy's array data.
    of_numpy: &'static str,
    /// Whether they may be requests of the raw domain.
    of_numpy_raw: bool,
}

/// NumPy's own allocating module: the start of its name.
const NUMPY: &str = "_multiarray_umath";
/// The first version that takes array data from the raw domain.
const FROM_RAW: (u32, u32) = (2, 5);

/// A version that is not understood is taken for a new one.
fn takes_data_from_raw(version: &str) -> bool {
    let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
    parts.next().zip(parts.next()).is_none_or(|version| version >= FROM_RAW)
}

impl Sites {
    /// `numpy` is the version of the program's NumPy, if it had one.
    pub(crate) fn new(mappings: &[Mapping], numpy: Option<&str>) -> Self {
        let has_handler = mappings.iter().any(|mapping| mapping.module == HANDLER_FILE);
        Self {
            of_numpy: if has_handler { HANDLER_FILE } else { NUMPY },
            of_numpy_raw: !has_handler && numpy.is_none_or(takes_data_from_raw),
            mappings: mappings.to_vec(),
            by_address: HashMap::from([(0, 0)]),
            by_site: HashMap::new(),
            list: vec![Site::default()],
        }
    }

    /// The index of the call site that holds this return address.
    pub(crate) fn index(&mut self, address: u64) -> u32 {
        if let Some(&index) = self.by_address.get(&address) {
            return index;
        }
        let index = match self.mapping(address) {
            None => 0,
            Some(Mapping { module, base, .. }) => {
                let site = Site { module: module.clone(), offset: address - base };
                *self.by_site.entry(site.clone()).or_insert_with(|| {
                    self.list.push(site);
                    self.list.len() as u32 - 1
                })
            }
        };
        self.by_address.insert(address, index);
        index
    }

    /// The latest mapping first: a library may have been loaded where another one was.
    fn mapping(&self, address: u64) -> Option<&Mapping> {
        self.mappings.iter().rev().find(|mapping| (mapping.begin..mapping.end).contains(&address))
    }

    /// The module that holds this address, which need not become a call site; empty when it is unknown.
    pub(crate) fn module_of(&self, address: u64) -> &str {
        self.mapping(address).map_or("", |mapping| &mapping.module)
    }

    /// The module of a call site.
    pub(crate) fn module(&self, index: u32) -> &str {
        &self.list[index as usize].module
    }

    /// Whether a request of `domain` from a call site is for array data. NumPy itself asks `malloc` for it, or from 2.5
    /// on `PyMem_RawMalloc`, which before gave it work space only. Where our handler was loaded, array data is what
    /// went through it: the work space that NumPy's own code goes on asking for is nothing that a handler reaches.
    pub(crate) fn is_of_numpy(&self, domain: Domain, index: u32) -> bool {
        let may_be = domain == Domain::Libc || domain == Domain::Raw && self.of_numpy_raw;
        may_be && self.module(index).starts_with(self.of_numpy)
    }

    /// How array data was asked for, in a process that has NumPy.
    pub(crate) fn numpy_data(&self) -> NumpyData {
        let is_handler = |site: &Site| site.module == HANDLER_FILE;
        match self.of_numpy {
            NUMPY => NumpyData::Cached,
            _ if self.list.iter().any(is_handler) => NumpyData::Handler,
            _ => NumpyData::Invisible,
        }
    }

    /// The table for the trace's metadata.
    pub(crate) fn list(&self) -> &[Site] {
        &self.list
    }
}
