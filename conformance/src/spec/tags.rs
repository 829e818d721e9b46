//! Listing tags.

use std::collections::BTreeSet;

use reqwest::Method;

use super::{Context, Requirement, must, should};
use crate::http::{Exchange, Request};
use crate::limits::PAGE_LIMIT;
use crate::outcome::Outcome;

const LIST: &str = "Listing Tags (end-8a)";
const PAGES: &str = "Listing Tags (end-8b)";

pub(super) const TABLE: &[Requirement] = &[
    must("tags-list", LIST, "the list is JSON with the repository's name and every tag", list),
    must("tags-order", LIST, "the list is in lexical order", order),
    must("tags-limit", PAGES, "n limits the list to its first n tags", limit),
    must("tags-limit-beyond", PAGES, "n larger than the number of tags gives all of them", limit_beyond),
    must("tags-limit-zero", PAGES, "n=0 gives an empty list without a Link", limit_zero),
    must("tags-last", PAGES, "last gives the tags after it", last),
    should("tags-last-unknown", PAGES, "last may be a tag that is no more: those after it follow", last_unknown),
    must("tags-pages", PAGES, "pages give every tag once, in order, by Link rel=\"next\" or last", pages),
    should("tags-repository-unknown", "Endpoints (end-8a)", "the list of an unknown repository is 404", repository_unknown),
];

/// Makes sure that there are a few tags, in mixed case, pushed in no order.
fn prepare(cx: &Context<'_>) -> Outcome {
    let manifest = &cx.image()?.manifest;
    for prefix in ["m", "Z", "a", "0", "B"] {
        cx.put_manifest(&format!("{prefix}-{}", cx.nonce), manifest)?.must_be(&[201])?;
    }
    Ok(())
}

fn get(cx: &Context<'_>, query: &str) -> Outcome<(Exchange, Vec<String>)> {
    let answer = cx.ask(Method::GET, &format!("tags/list{query}"))?;
    let tags = tags_of(&answer)?;
    Ok((answer, tags))
}

/// The tags of a list.
pub(super) fn tags_of(answer: &Exchange) -> Outcome<Vec<String>> {
    answer.must_be(&[200])?;
    let document = answer.must_be_json()?;
    // An empty list is written as null by many.
    let tags = if document["tags"].is_null() { Some(Vec::new()) } else { serde_json::from_value(document["tags"].clone()).ok() };
    tags.ok_or_else(|| answer.fail("a member \"tags\", a list of strings"))
}

fn whole(cx: &Context<'_>) -> Outcome<Vec<String>> {
    prepare(cx)?;
    Ok(get(cx, "")?.1)
}

fn list(cx: &Context<'_>) -> Outcome {
    let tag = &cx.image()?.tag;
    let (answer, tags) = get(cx, "")?;
    answer.must(answer.must_be_json()?["name"] == *cx.repository, format_args!("\"name\":\"{}\"", cx.repository))?;
    answer.must(tags.contains(tag), format_args!("the tag {tag} that was pushed"))
}

fn order(cx: &Context<'_>) -> Outcome {
    prepare(cx)?;
    let (answer, tags) = get(cx, "")?;
    answer.must(ordered(&tags), "tags in lexical order")
}

/// By bytes, or without regard to case: 1.1 says the second, everyone does the first, later versions allow both.
fn ordered(tags: &[String]) -> bool {
    tags.is_sorted() || tags.is_sorted_by_key(|tag| tag.to_ascii_lowercase())
}

fn limit(cx: &Context<'_>) -> Outcome {
    let all = whole(cx)?;
    let (answer, tags) = get(cx, "?n=2")?;
    answer.must(tags == all[..2], format_args!("the first 2 tags, {:?}", &all[..2]))
}

fn limit_beyond(cx: &Context<'_>) -> Outcome {
    let all = whole(cx)?;
    let (answer, tags) = get(cx, &format!("?n={}", all.len() + 1))?;
    // Fewer are right when a Link leads to the others.
    let held = tags == all || (all.starts_with(&tags) && answer.header("Link").is_some());
    answer.must(held, format_args!("all {} tags", all.len()))
}

fn limit_zero(cx: &Context<'_>) -> Outcome {
    prepare(cx)?;
    let (answer, tags) = get(cx, "?n=0")?;
    answer.must(tags.is_empty() && answer.header("Link").is_none(), "no tags and no Link")
}

fn last(cx: &Context<'_>) -> Outcome {
    let all = whole(cx)?;
    let (answer, tags) = get(cx, &format!("?last={}", all[1]))?;
    answer.must(tags == all[2..], format_args!("the {} tags after {:?}", all.len() - 2, all[1]))
}

fn last_unknown(cx: &Context<'_>) -> Outcome {
    let all = whole(cx)?;
    // Directly after the second tag in both orders that are allowed, and no tag itself.
    let (answer, tags) = get(cx, &format!("?last={}-", all[1]))?;
    answer.must(tags == all[2..], format_args!("the {} tags after {:?}", all.len() - 2, all[1]))
}

fn pages(cx: &Context<'_>) -> Outcome {
    let all = whole(cx)?;
    let page_size = all.len().div_ceil(3);
    let mut seen = Vec::new();
    let mut target = cx.path(&format!("tags/list?n={page_size}"));
    for _ in 0..PAGE_LIMIT {
        let answer = cx.send(Request::new(Method::GET, target))?;
        let tags = tags_of(&answer)?;
        answer.must(tags.len() <= page_size, format_args!("at most {page_size} tags"))?;
        let Some(last) = tags.last().cloned() else { break };
        seen.extend(tags);
        target = match answer.header("Link") {
            Some(link) => answer.resolve(next_of(link).ok_or_else(|| answer.fail("Link: <...>; rel=\"next\""))?)?.into(),
            None => cx.path(&format!("tags/list?n={page_size}&last={last}")),
        };
    }
    let (answer, _) = get(cx, "")?;
    let distinct: BTreeSet<_> = seen.iter().collect();
    answer.must(distinct.len() == seen.len() && seen == all, format_args!("the {} tags that came page by page", seen.len()))
}

/// The target of a Link with relation type next (RFC 8288 section 3).
pub(super) fn next_of(link: &str) -> Option<&str> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = |p: &str| matches!(p.trim().split_once('='), Some((name, value)) if name.trim() == "rel" && value.trim().trim_matches('"') == "next");
    parameters.split(';').any(is_next).then_some(target)
}

fn repository_unknown(cx: &Context<'_>) -> Outcome {
    let path = format!("/v2/{}/{}/tags/list", cx.repository, cx.fresh_name());
    cx.send(Request::new(Method::GET, path))?.must_be(&[404])
}
