//! Call sites: return addresses become module base names and offsets.
//!
//! Invariant: entry 0 is "unknown"; an address that lies in no known mapping is unknown, never guessed.

use crate::reader::Mapping;
use std::collections::HashMap;
use trace::Site;

/// The table of call sites as it grows.
pub(crate) struct Sites {
    mappings: Vec<Mapping>,
    by_address: HashMap<u64, u32>,
    by_site: HashMap<Site, u32>,
    list: Vec<Site>,
}

impl Sites {
    pub(crate) fn new(mappings: &[Mapping]) -> Self {
        Self {
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

    /// The table for the trace's metadata.
    pub(crate) fn list(&self) -> &[Site] {
        &self.list
    }
}
