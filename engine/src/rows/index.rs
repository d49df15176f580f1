//! Finds rows by the hash of their key: a multimap from hashes to refs.
//!
//! Two keys may have one hash. Whoever probes gets candidates and must compare the key columns, best of all candidates at
//! once, with arrow's kernels.

use super::RowRef;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;

const NONE: u32 = u32::MAX;

/// A hash and the list of its rows.
struct Entry {
    hash: u64,
    head: u32,
    tail: u32,
}

/// A row of a list.
#[derive(Clone, Copy)]
struct Node {
    row: RowRef,
    next: u32,
}

/// Rows by hash; those of one hash oldest first.
#[derive(Default)]
pub(crate) struct RowIndex {
    table: HashTable<Entry>,
    nodes: Vec<Node>,
    /// The first of the nodes that are free.
    free: Option<u32>,
}

/// Where a probe goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProbeFrom {
    /// The probing row.
    row: usize,
    /// The next of its candidates; none when it has not begun.
    node: Option<u32>,
}

impl RowIndex {
    /// Returns about how many bytes the index takes.
    pub(crate) fn size(&self) -> usize {
        self.table.capacity() * (size_of::<Entry>() + 1) + self.nodes.capacity() * size_of::<Node>()
    }

    /// Adds a row. It must be younger than all rows of its hash.
    pub(crate) fn insert(&mut self, hash: u64, row: RowRef) {
        let node = self.new_node(row);
        match self.table.entry(hash, |entry| entry.hash == hash, |entry| entry.hash) {
            TableEntry::Occupied(mut entry) => {
                let entry = entry.get_mut();
                self.nodes[entry.tail as usize].next = node;
                entry.tail = node;
            }
            TableEntry::Vacant(vacant) => {
                vacant.insert(Entry {
                    hash,
                    head: node,
                    tail: node,
                });
            }
        }
    }

    fn new_node(&mut self, row: RowRef) -> u32 {
        let node = Node { row, next: NONE };
        match self.free {
            Some(free) => {
                let next = self.nodes[free as usize].next;
                self.free = (next != NONE).then_some(next);
                self.nodes[free as usize] = node;
                free
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        }
    }

    /// Removes rows. They are sorted by hash and age, so that each list is walked once.
    pub(crate) fn remove(&mut self, rows: &mut [(u64, RowRef)]) {
        rows.sort_unstable();
        for of_hash in rows.chunk_by(|a, b| a.0 == b.0) {
            self.remove_of(of_hash[0].0, of_hash);
        }
    }

    fn remove_of(&mut self, hash: u64, rows: &[(u64, RowRef)]) {
        let Ok(mut found) = self.table.find_entry(hash, |entry| entry.hash == hash) else {
            return;
        };
        let entry = found.get_mut();
        let (mut previous, mut node, mut next_row) = (NONE, entry.head, 0);
        while node != NONE && next_row < rows.len() {
            let Node { row, next } = self.nodes[node as usize];
            while next_row < rows.len() && rows[next_row].1 < row {
                next_row += 1;
            }
            if next_row < rows.len() && rows[next_row].1 == row {
                match previous {
                    NONE => entry.head = next,
                    previous => self.nodes[previous as usize].next = next,
                }
                if next == NONE {
                    entry.tail = previous;
                }
                self.nodes[node as usize].next = self.free.unwrap_or(NONE);
                self.free = Some(node);
                next_row += 1;
            } else {
                previous = node;
            }
            node = next;
        }
        if entry.head == NONE {
            found.remove();
        }
        self.shrink();
    }

    /// Gives memory back when most of it is free.
    fn shrink(&mut self) {
        if self.table.is_empty() {
            self.nodes.clear();
            self.free = None;
            if self.nodes.capacity() > 4096 {
                self.nodes = Vec::new();
                self.table = HashTable::new();
            }
        } else if self.table.capacity() > 4096 && self.table.len() < self.table.capacity() / 8 {
            self.table.shrink_to(self.table.len() * 2, |entry| entry.hash);
        }
    }

    /// Changes the places of rows: hash, old and new place. The order of the rows must stay as it was.
    pub(crate) fn moved(&mut self, moves: &mut [(u64, RowRef, RowRef)]) {
        moves.sort_unstable();
        for of_hash in moves.chunk_by(|a, b| a.0 == b.0) {
            let hash = of_hash[0].0;
            let Some(entry) = self.table.find(hash, |entry| entry.hash == hash) else {
                continue;
            };
            let (mut node, mut left) = (entry.head, of_hash);
            while node != NONE {
                let known = &mut self.nodes[node as usize];
                while left.first().is_some_and(|(_, old, _)| *old < known.row) {
                    left = &left[1..];
                }
                let Some((_, old, new)) = left.first() else { break };
                if *old == known.row {
                    known.row = *new;
                    left = &left[1..];
                }
                node = known.next;
            }
        }
    }

    /// Returns the rows of a hash, oldest first.
    pub(crate) fn rows_of(&self, hash: u64) -> impl Iterator<Item = RowRef> {
        let head = self
            .table
            .find(hash, |entry| entry.hash == hash)
            .map(|entry| entry.head);
        std::iter::successors(head.map(|head| self.nodes[head as usize]), |node| {
            (node.next != NONE).then(|| self.nodes[node.next as usize])
        })
        .map(|node| node.row)
    }

    /// Adds the candidates of probing rows, by their hashes: the number of the probing row and the ref of the row that has
    /// the same hash; at most `pairs_max` of them. Begins at `from`; returns where to go on, `None` when all are found.
    pub(crate) fn candidates(
        &self,
        hashes: &[u64],
        from: ProbeFrom,
        pairs_max: usize,
        probing: &mut Vec<u32>,
        found: &mut Vec<RowRef>,
    ) -> Option<ProbeFrom> {
        let mut left = pairs_max;
        let mut node = from.node;
        for (row, &hash) in hashes.iter().enumerate().skip(from.row) {
            let mut next = match node.take() {
                Some(node) => node,
                None => match self.table.find(hash, |entry| entry.hash == hash) {
                    Some(entry) => entry.head,
                    None => continue,
                },
            };
            while next != NONE {
                if left == 0 {
                    return Some(ProbeFrom { row, node: Some(next) });
                }
                left -= 1;
                let known = self.nodes[next as usize];
                probing.push(row as u32);
                found.push(known.row);
                next = known.next;
            }
        }
        None
    }
}
