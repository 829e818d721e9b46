//! The verbs of containers and of images: by themselves, and behind their nouns as docker has them, too.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use longshore_runtime::container::Containers;

use super::inspect::Kind;
use super::prune::{Prune, PruneImages};
use super::{
    Global, attach, cat, cp, create, delete, diff, digest, doctor, exec, history, images, inspect, kill, load, logs, manifest,
    pause, port, ps, pull, push, rate_limit, referrers, rename, restart, rm, rmi, run, save, start, stats, stop, tag, tags, top,
    update, wait,
};
use crate::error::Result;

/// `rbox VERB` and `rbox container VERB`.
#[derive(Debug, Subcommand)]
pub(super) enum OfContainer {
    Run(Box<run::Run>),
    // A container that is only made is in nobody's background.
    #[command(mut_arg("detach", |arg| arg.hide(true)))]
    #[command(mut_arg("detach_keys", |arg| arg.hide(true)), mut_arg("sig_proxy", |arg| arg.hide(true)))]
    Create(Box<create::Create>),
    Logs(logs::Logs),
    Exec(exec::Exec),
    Cp(cp::Cp),
    Diff(diff::Diff),
    Stop(stop::Stop),
    Kill(kill::Kill),
    Wait(wait::Wait),
    Start(start::Start),
    Restart(restart::Restart),
    Attach(attach::Attach),
    Update(update::Update),
    /// Freeze all processes of running containers
    Pause(pause::Pause),
    /// Let paused containers go on
    Unpause(pause::Pause),
    Rename(rename::Rename),
    Top(top::Top),
    Port(port::Port),
    Stats(stats::Stats),
    Rm(rm::Rm),
}

impl OfContainer {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        match self {
            Self::Run(verb) => verb.execute(global),
            Self::Create(verb) => verb.execute(global),
            Self::Logs(verb) => verb.execute(global),
            Self::Exec(verb) => verb.execute(global),
            Self::Cp(verb) => verb.execute(global),
            Self::Diff(verb) => verb.execute(global),
            Self::Stop(verb) => verb.execute(global),
            Self::Kill(verb) => verb.execute(global),
            Self::Wait(verb) => verb.execute(global),
            Self::Start(verb) => verb.execute(global),
            Self::Restart(verb) => verb.execute(global),
            Self::Attach(verb) => verb.execute(global),
            Self::Update(verb) => verb.execute(global),
            Self::Pause(verb) => verb.execute(global, Containers::pause),
            Self::Unpause(verb) => verb.execute(global, Containers::unpause),
            Self::Rename(verb) => verb.execute(global),
            Self::Top(verb) => verb.execute(global),
            Self::Port(verb) => verb.execute(global),
            Self::Stats(verb) => verb.execute(global),
            Self::Rm(verb) => verb.execute(global),
        }
    }
}

/// Manage containers
#[derive(Debug, Args)]
pub(super) struct Container {
    #[command(subcommand)]
    verb: ContainerVerb,
}

#[derive(Debug, Subcommand)]
enum ContainerVerb {
    #[command(visible_aliases = ["list", "ps"])]
    Ls(ps::Ps),
    /// Show everything about containers, as JSON
    #[command(mut_arg("kind", |arg| arg.hide(true)))]
    Inspect(inspect::Inspect),
    /// Remove all containers that do not run
    Prune(Prune),
    #[command(flatten)]
    Other(OfContainer),
}

impl Container {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        match self.verb {
            ContainerVerb::Ls(verb) => verb.execute(global),
            ContainerVerb::Inspect(verb) => verb.of(Kind::Container).execute(global),
            ContainerVerb::Prune(verb) => verb.stopped_containers(global),
            ContainerVerb::Other(verb) => verb.execute(global),
        }
    }
}

/// `rbox VERB` and `rbox image VERB`.
#[derive(Debug, Subcommand)]
pub(super) enum OfImage {
    Pull(pull::Pull),
    Push(push::Push),
    Tag(tag::Tag),
    History(history::History),
    Save(save::Save),
    Load(load::Load),
}

impl OfImage {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        match self {
            Self::Pull(verb) => verb.execute(global),
            Self::Push(verb) => verb.execute(global),
            Self::Tag(verb) => verb.execute(global),
            Self::History(verb) => verb.execute(global),
            Self::Save(verb) => verb.execute(global),
            Self::Load(verb) => verb.execute(global),
        }
    }
}

/// Manage images
#[derive(Debug, Args)]
pub(super) struct Image {
    #[command(subcommand)]
    verb: ImageVerb,
}

#[derive(Debug, Subcommand)]
enum ImageVerb {
    #[command(visible_alias = "list")]
    Ls(images::Images),
    #[command(visible_alias = "remove")]
    Rm(rmi::Rmi),
    /// Show everything about images, as JSON
    #[command(mut_arg("kind", |arg| arg.hide(true)))]
    Inspect(inspect::Inspect),
    /// Remove images without a name that no container needs
    Prune(PruneImages),
    #[command(flatten)]
    Other(OfImage),
}

impl Image {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        match self.verb {
            ImageVerb::Ls(verb) => verb.execute(global),
            ImageVerb::Rm(verb) => verb.execute(global),
            ImageVerb::Inspect(verb) => verb.of(Kind::Image).execute(global),
            ImageVerb::Prune(verb) => verb.unused_images(global),
            ImageVerb::Other(verb) => verb.execute(global),
        }
    }
}

/// What looks at a registry, and changes what it has, without pulling.
#[derive(Debug, Subcommand)]
pub(super) enum OfRegistry {
    Tags(tags::Tags),
    Catalog(tags::Catalog),
    Digest(digest::Digest),
    Manifest(manifest::Manifest),
    Cat(cat::Cat),
    #[command(visible_alias = "discover")]
    Referrers(referrers::Referrers),
    Delete(delete::Delete),
    RateLimit(rate_limit::RateLimit),
    Doctor(doctor::Doctor),
}

impl OfRegistry {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        match self {
            Self::Tags(verb) => verb.execute(),
            Self::Catalog(verb) => verb.execute(),
            Self::Digest(verb) => verb.execute(),
            Self::Manifest(verb) => verb.execute(global),
            Self::Cat(verb) => verb.execute(global),
            Self::Referrers(verb) => verb.execute(),
            Self::Delete(verb) => verb.execute(),
            Self::RateLimit(verb) => verb.execute(),
            Self::Doctor(verb) => verb.execute(global),
        }
    }
}
