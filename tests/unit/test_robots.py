"""What a site's robots.txt, headers and pages forbid, by RFC 9309: the longest rule, wildcards, the reader's group."""

from __future__ import annotations

import tracemalloc

import pytest

from groundplan.knowledge.sources.robots import page_directives, parse_robots
from groundplan.knowledge.sources.sitemaps import parse_sitemap as sitemap


@pytest.mark.parametrize(
    ("rules", "path", "allowed"),
    [
        ("", "/anything", True),
        ("Disallow: /private", "/private/a", False),
        ("Allow: /\nDisallow: /private", "/private/a", False),
        ("Disallow: /\nAllow: /public/", "/public/a", True),
        ("Disallow: /\nAllow: /public/", "/other", False),
        ("Disallow: /a\nAllow: /a", "/a", True),
        ("Disallow:", "/a", True),
        ("Disallow: /*.pdf$", "/papers/a.pdf", False),
        ("Disallow: /*.pdf$", "/papers/a.pdf?page=1", True),
        ("Disallow: /*/drafts/", "/hr/drafts/a", False),
        ("Disallow: /*?session=", "/a?session=1", False),
        ("Disallow: /a*b*c$", "/abc", False),
        ("Disallow: /a*b*bc$", "/abc", True),
        ("Disallow: /caf%C3%A9", "/café/menu", False),
        ("Disallow: /private/", "/private%2Fa", False),
        ("Disallow: /  # all of it", "/a", False),
        ("Disallow: /a%2Ab", "/a-b", True),
        ("Disallow: /a%2Ab", "/a*b", False),
        ("Disallow: /price%24", "/price$/a", False),
        ("Disallow: /price%24", "/price", True),
        ("Disallow: /a$b", "/a$b/c", False),
    ],
)
def test_the_longest_rule_decides(rules: str, path: str, allowed: bool) -> None:
    robots = parse_robots(f"User-agent: *\n{rules}\n".encode(), "groundplan")
    assert robots.allows(f"https://acme.example{path}") is allowed


def test_rules_are_those_of_every_group_that_names_the_reader() -> None:
    robots = parse_robots(
        b"\xef\xbb\xbfUser-agent: other\nUser-Agent: GroundPlan/2.0\nDisallow: /a\nCrawl-delay: 0.5\n\n"
        b"User-agent: *\nDisallow: /\nSitemap: https://acme.example/map.xml\n\nuser-agent: groundplan\ndisallow: /b\n",
        "groundplan",
    )
    assert [robots.allows(f"https://acme.example{path}") for path in ("/a", "/b", "/c")] == [False, False, True]
    assert (robots.delay, robots.sitemaps) == (0.5, ("https://acme.example/map.xml",))


@pytest.mark.parametrize(
    ("headers", "page", "asked"),
    [
        (["nofollow", "noindex"], b"", "noindex nofollow"),
        (["none"], b"", "noindex nofollow"),
        (["NoFollow"], b"", "nofollow"),
        (["otherbot: noindex, nofollow"], b"", ""),
        (["groundplan: noindex, nofollow"], b"", "noindex nofollow"),
        (["unavailable_after: 25 Jun 2027, noindex"], b"", "noindex"),
        ([], b"<head>" + b" " * 30_000 + b"<meta content='NOINDEX, follow' name=robots>", "noindex"),
        ([], b'<meta name="groundplan" content="none">', "noindex nofollow"),
        (["noindex"], b'<meta name="robots" content="index, nofollow">', "noindex nofollow"),
        ([], b'<meta name="robots" content="index, follow">', ""),
        ([], b'<meta name="description" content="what noindex, nofollow means">', ""),
    ],
)
def test_a_page_may_ask_not_to_be_found_and_its_links_not_to_be_followed(
    headers: list[str], page: bytes, asked: str
) -> None:
    assert page_directives(headers, page, "groundplan") == set(asked.split())


def test_a_sitemap_takes_no_more_memory_than_its_addresses() -> None:
    data = b"<urlset><url>" + b"<a/>" * 2_000_000 + b"<loc>https://acme.example/a</loc></url></urlset>"
    tracemalloc.start()
    try:
        assert sitemap(data).pages == ("https://acme.example/a",)
        assert tracemalloc.get_traced_memory()[1] < len(data)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_a_sitemap_defines_no_entities(encoding: str) -> None:
    text = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><urlset><url><loc>https://x/&a;</loc></url></urlset>'
    with pytest.raises(ValueError, match="entities"):
        sitemap(text.encode(encoding))


def test_pictures_of_a_sitemap_are_no_pages() -> None:
    data = b"""<urlset xmlns:i="http://www.google.com/schemas/sitemap-image/1.1"><url><loc>https://acme.example/a</loc>
        <i:image><i:loc>https://acme.example/a.png</i:loc></i:image></url></urlset>"""
    assert sitemap(data).pages == ("https://acme.example/a",)
