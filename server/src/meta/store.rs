//! Metadata over any [`Table`] and [`Log`]: questions are answered from the table, changes go
//! through the committing thread.

use std::sync::Arc;
use std::time::Duration;

use longshore_runtime::name::{Digest, RepoName, Tag};

use super::cached::Cached;
use super::change::{Change, Put};
use super::commit::Committer;
use super::journal::{Log, Rewriter};
use super::lease::Leases;
use super::table::{Lookup, Table};
use super::{
    Facts, Keeper, Kind, ManifestEntry, ManifestName, Metadata, Page, PutOptions, References, Referrers, Unreferenced, keys,
    read, rebuild,
};
use crate::error::Result;

/// Metadata in a table, made of a log.
#[derive(Debug)]
pub struct Store<T> {
    table: Cached<T>,
    leases: Arc<Leases>,
    /// Dropped, and with it flushed, before whatever the table is part of.
    committer: Committer,
}

impl<T: Table> Store<T> {
    /// Over a table that has everything the log has; `rewriter` keeps the log short.
    pub(super) fn new(table: T, log: impl Log, rewriter: Option<Rewriter>, leases: Leases) -> Self {
        let (table, leases) = (Cached::new(table), Arc::new(leases));
        Self { committer: Committer::start(table.clone(), log, rewriter, Arc::clone(&leases)), table, leases }
    }

    async fn read<V: Send + 'static>(&self, query: impl FnOnce(&Cached<T>, &Leases) -> Result<V> + Send + 'static) -> Result<V> {
        let (table, leases) = (self.table.clone(), Arc::clone(&self.leases));
        crate::blocking(move || query(&table, &leases)).await
    }
}

impl<T: Table> Metadata for Store<T> {
    async fn link_blob(&self, repo: &RepoName, digest: &Digest, size: u64) -> Result<()> {
        let change = Change::LinkBlob { repo: repo.clone(), digest: digest.clone(), size };
        self.committer.commit(change).await.map(drop)
    }

    async fn mount_blob(&self, from: &RepoName, to: &RepoName, digest: &Digest) -> Result<bool> {
        self.committer.commit(Change::MountBlob { from: from.clone(), to: to.clone(), digest: digest.clone() }).await
    }

    async fn blob(&self, repo: &RepoName, digest: &Digest) -> Result<Option<u64>> {
        if let Some(answer) = self.table.remembered(|table| read::blob(table, &self.leases, repo, digest)) {
            return answer;
        }
        let (repo, digest) = (repo.clone(), digest.clone());
        self.read(move |table, leases| read::blob(table, leases, &repo, &digest)).await
    }

    async fn unlink_blob(&self, repo: &RepoName, digest: &Digest) -> Result<bool> {
        self.committer.commit(Change::UnlinkBlob { repo: repo.clone(), digest: digest.clone() }).await
    }

    async fn put_manifest(
        &self,
        repo: &RepoName,
        entry: &ManifestEntry,
        references: &References,
        tags: &[Tag],
        options: PutOptions,
    ) -> Result<()> {
        let (repo, entry, references, tags) = (repo.clone(), entry.clone(), references.clone(), tags.to_vec());
        let put = Put { repo, entry, references, tags, options };
        self.committer.commit(Change::PutManifest(Box::new(put))).await.map(drop)
    }

    async fn manifest(&self, repo: &RepoName, name: &ManifestName) -> Result<Option<ManifestEntry>> {
        if let Some(answer) = self.table.remembered(|table| read::manifest(table, &self.leases, repo, name)) {
            return answer;
        }
        let (repo, name) = (repo.clone(), name.clone());
        self.read(move |table, leases| read::manifest(table, leases, &repo, &name)).await
    }

    async fn delete_manifest(&self, repo: &RepoName, name: &ManifestName) -> Result<bool> {
        self.committer.commit(Change::Delete { repo: repo.clone(), name: name.clone() }).await
    }

    async fn tags(&self, repo: &RepoName, after: Option<&str>, limit: usize) -> Result<Option<Page>> {
        let (repo, after) = (repo.clone(), after.map(String::from));
        self.read(move |table, _| {
            let page = read::page(table, &keys::tag(&repo, ""), after.as_deref(), limit)?;
            let known = !page.entries.is_empty() || table.has(&keys::repository(repo.as_str()))?;
            Ok(known.then_some(page))
        })
        .await
    }

    async fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Page> {
        let after = after.map(String::from);
        self.read(move |table, _| read::page(table, &keys::repository(""), after.as_deref(), limit)).await
    }

    async fn referrers(
        &self,
        repo: &RepoName,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Referrers> {
        let (prefix, after) = (keys::referrers(repo, subject, artifact_type), after.map(String::from));
        self.read(move |table, _| read::referrers(table, &prefix, after.as_deref(), limit)).await
    }

    async fn holders(&self, digest: &Digest, after: Option<&RepoName>, limit: usize) -> Result<Vec<RepoName>> {
        let (digest, after) = (digest.clone(), after.cloned());
        self.read(move |table, _| read::holders(table, &digest, after.as_ref(), limit)).await
    }

    async fn keepers(&self, repo: &RepoName, digest: &Digest, limit: usize) -> Result<Vec<Keeper>> {
        let (repo, digest) = (repo.clone(), digest.clone());
        self.read(move |table, _| read::keepers(table, &repo, &digest, limit)).await
    }

    async fn unreferenced(
        &self,
        kind: Kind,
        grace: Duration,
        after: Option<&Unreferenced>,
        limit: usize,
    ) -> Result<Vec<Unreferenced>> {
        let after = after.cloned();
        self.read(move |table, leases| {
            if after.is_none() {
                leases.expire(grace);
            }
            read::unreferenced(table, leases, kind, grace, after.as_ref(), limit)
        })
        .await
    }

    async fn collect(&self, candidate: &Unreferenced, grace: Duration) -> Result<bool> {
        self.committer.commit(Change::Collect { candidate: candidate.clone(), grace }).await
    }

    async fn facts(&self, after: Option<&[u8]>, limit: usize) -> Result<Facts> {
        let after = after.map(<[u8]>::to_vec);
        self.read(move |table, _| {
            let mut found = Facts { facts: Vec::new(), next: None };
            for fact in rebuild::facts(table, after.as_deref()) {
                let (key, fact) = fact?;
                found.facts.push(fact);
                if found.facts.len() == limit {
                    found.next = Some(key);
                    break;
                }
            }
            Ok(found)
        })
        .await
    }

    async fn unlinked(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<Digest>> {
        let after = after.cloned();
        self.read(move |table, _| read::unlinked(table, after.as_ref(), limit)).await
    }

    async fn forget(&self, digest: &Digest) -> Result<()> {
        self.committer.commit(Change::Forget(digest.clone())).await.map(drop)
    }
}
