//! A configuration file as written: sections, keys and the line of each.
//!
//! Invariant: section names are one in any letter case, keys are lower-case and once per section.
//! Not here: the syntax (`ini`, `toml_file`) and what a value means (`value`).

use std::collections::HashMap;

use serde_json::Value;

/// The section whose keys every other section inherits.
const DEFAULT: &str = "default";

/// Sections and keys in the order they were written.
#[derive(Debug)]
pub(super) struct Document {
    /// The file as it was named.
    pub(super) file: String,
    /// In the order of their first header.
    pub(super) sections: Vec<Section>,
    index: HashMap<String, usize>,
}

/// One section; several headers of the same name add to it.
#[derive(Debug)]
pub(super) struct Section {
    /// As first written.
    pub(super) name: String,
    /// Of the first header.
    pub(super) line: usize,
    /// In the order written.
    pub(super) entries: Vec<Entry>,
    index: HashMap<String, usize>,
}

/// A key and its value.
#[derive(Debug)]
pub(super) struct Entry {
    /// Lower-case.
    pub(super) key: String,
    /// Where the key stands.
    pub(super) line: usize,
    /// What stands there.
    pub(super) written: Written,
}

/// A value before references and types are looked at.
#[derive(Debug)]
pub(super) enum Written {
    /// INI text, or a TOML string.
    Text(String),
    /// Any other TOML value; strings inside may hold references.
    Tree(Value),
}

/// One key as seen from one section: an inherited key is read anew in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Node {
    /// Whose `${key}` it sees.
    pub(super) section: usize,
    home: usize,
    entry: usize,
}

impl Document {
    /// An empty document of the file shown as `file`.
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), sections: Vec::new(), index: HashMap::new() }
    }

    /// The section `name`, made when it is the first of that name.
    pub(super) fn open(&mut self, name: &str, line: usize) -> usize {
        let next = self.sections.len();
        let section = *self.index.entry(canonical(name)).or_insert(next);
        if section == next {
            let name = name.to_owned();
            self.sections.push(Section { name, line, entries: Vec::new(), index: HashMap::new() });
        }
        section
    }

    /// Adds a key; `Err` holds the line where the section has it already.
    pub(super) fn put(&mut self, section: usize, entry: Entry) -> Result<(), usize> {
        let section = &mut self.sections[section];
        if let Some(&first) = section.index.get(&entry.key) {
            return Err(section.entries[first].line);
        }
        section.index.insert(entry.key.clone(), section.entries.len());
        section.entries.push(entry);
        Ok(())
    }

    /// The section of that name, in any letter case.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.index.get(&canonical(name)).copied()
    }

    /// The section every other one inherits from.
    pub(super) fn default_section(&self) -> Option<usize> {
        self.index.get(DEFAULT).copied()
    }

    /// The key `key` (lower-case) as `section` sees it: its own, else the inherited one.
    pub(super) fn lookup(&self, section: usize, key: &str) -> Option<Node> {
        self.own(section, key).or_else(|| {
            let home = self.default_section()?;
            let entry = *self.sections[home].index.get(key)?;
            Some(Node { section, home, entry })
        })
    }

    /// The key `key` when it stands in `section` itself.
    pub(super) fn own(&self, section: usize, key: &str) -> Option<Node> {
        let entry = *self.sections[section].index.get(key)?;
        Some(Node { section, home: section, entry })
    }

    /// What `section` holds itself, in the order written.
    pub(super) fn own_nodes(&self, section: usize) -> impl Iterator<Item = Node> + use<> {
        (0..self.sections[section].entries.len()).map(move |entry| Node {
            section,
            home: section,
            entry,
        })
    }

    /// What `section` holds and what it inherits.
    pub(super) fn nodes(&self, section: usize) -> Vec<Node> {
        let mut nodes: Vec<Node> = self.own_nodes(section).collect();
        if let Some(home) = self.default_section().filter(|&home| home != section) {
            let inherited = self.sections[home].entries.iter().enumerate();
            nodes.extend(
                inherited
                    .filter(|(_, entry)| !self.sections[section].index.contains_key(&entry.key))
                    .map(|(entry, _)| Node { section, home, entry }),
            );
        }
        nodes
    }

    /// How many keys all sections see together, inherited ones counted for each.
    pub(super) fn seen_count(&self) -> usize {
        let inherited = self.default_section().map_or(0, |home| self.sections[home].entries.len());
        let own: usize = self.sections.iter().map(|section| section.entries.len()).sum();
        own.saturating_add(inherited.saturating_mul(self.sections.len()))
    }

    /// What was written there.
    pub(super) fn entry(&self, node: Node) -> &Entry {
        &self.sections[node.home].entries[node.entry]
    }

    /// The name of the section that sees it, as written.
    pub(super) fn section_name(&self, node: Node) -> &str {
        &self.sections[node.section].name
    }

    /// Whether `section` holds the parameters of plugins, which are query strings.
    pub(super) fn holds_parameters(&self, section: usize) -> bool {
        self.find("plugin_parms") == Some(section)
    }
}

/// The one spelling of a section's name.
pub(super) fn canonical(name: &str) -> String {
    let name = name.trim().to_lowercase();
    if name == "pluginparms" { "plugin_parms".to_owned() } else { name }
}
