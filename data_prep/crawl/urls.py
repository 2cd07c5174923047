"""Addresses of web pages: cleaned, told apart from Wikipedia's, and looked up in a block list."""

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from urllib.parse import SplitResult, urlsplit, urlunsplit

from shared.errors import InputError
from shared.rows import clean_text

PORTS = {"http": 80, "https": 443}
# Query parameters that say where a visitor came from, never what the page shows; and those that name a session.
TRACKING = re.compile(
    r"utm_\w+|fbclid|gclid|gclsrc|dclid|gbraid|wbraid|msclkid|yclid|ymclid|twclid|ttclid|li_fat_id|igshid|igsh|srsltid"
    r"|mc_cid|mc_eid|mkt_tok|_hsenc|_hsmi|hsctatracking|_ga|_gl|_openstat|wt_mc|wickedid|oly_anon_id|oly_enc_id|vero_id"
    r"|phpsessid|jsessionid|aspsessionid\w*|cfid|cftoken",
    re.IGNORECASE,
)
_SESSION_IN_PATH = re.compile(r";jsessionid=[^/?;]*", re.IGNORECASE)
_HOST = re.compile(r"[^\s%<>\"'\\^`{|}]+")
_DOMAIN = re.compile(r"[^\s/:@?#*]+")


def clean_url(url: str) -> str | None:
    """The address without fragment, user, default port and tracking parameters, its host in lower case; None when it
    is not one of the web (http or https, with a host)."""
    parts = _split(url)
    if parts is None or parts.scheme not in PORTS or not (host := _host(parts)):
        return None
    try:
        port = parts.port
    except ValueError:
        return None
    if ":" in host:
        host = f"[{host}]"
    if port is not None and port != PORTS[parts.scheme]:
        host += f":{port}"
    query = "&".join(
        pair for pair in parts.query.split("&") if pair and not TRACKING.fullmatch(pair.partition("=")[0])
    )
    return urlunsplit((parts.scheme, host, _SESSION_IN_PATH.sub("", parts.path) or "/", query, ""))


def host_of(url: str) -> str:
    """The host of an address in lower case, without port, user and closing dot; empty when there is none."""
    parts = _split(url)
    return _host(parts) if parts else ""


def is_wikipedia(url: str) -> bool:
    """Whether a page is of any language's Wikipedia, in any variant: en.wikipedia.org, de.m.wikipedia.org,
    zh.zero.wikipedia.org, www.wikipedia.org:443, ..."""
    return f".{host_of(url)}".endswith(".wikipedia.org")


class BlockList:
    """Domains, each of which stands for its subdomains too."""

    def __init__(self, domains: frozenset[str]) -> None:
        self.domains = domains

    def blocks(self, url: str) -> bool:
        host = host_of(url)
        while host:
            if host in self.domains:
                return True
            host = host.partition(".")[2]
        return False


@lru_cache(maxsize=1)  # a worker reads it once, not for each of its files
def read_block_list(path: str) -> tuple[BlockList, str]:
    """The block list in a file with one domain a line (`#` starts a comment), and the hash of the domains.

    Raises InputError for a file that cannot be read, and a line that is not a domain.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--block_list {path}: cannot be read as text: {error}") from error
    domains = set()
    for number, line in enumerate(lines, 1):
        domain = line.partition("#")[0].strip().lower().removeprefix("*.").strip(".")
        if domain and not _DOMAIN.fullmatch(domain):
            raise InputError(f"--block_list {path}, line {number}: {line.strip()[:80]!r} is not a domain")
        if domain:
            domains.add(_ascii_host(domain))
    digest = hashlib.sha256("\n".join(sorted(domains)).encode()).hexdigest()
    return BlockList(frozenset(domains)), digest


def _split(url: str) -> SplitResult | None:
    url = re.sub(r"[\t\r\n]", "", clean_text(url)).strip().removeprefix("<").removesuffix(">")
    try:
        return urlsplit(re.sub(r"\s", "%20", url))
    except ValueError:
        return None


def _host(parts: SplitResult) -> str:
    try:
        host = _ascii_host((parts.hostname or "").rstrip("."))
    except ValueError:
        return ""
    return host if _HOST.fullmatch(host) else ""


def _ascii_host(host: str) -> str:
    """An international name as the DNS has it, so that both spellings are the same."""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host
