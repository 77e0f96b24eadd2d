"""The PostgreSQL server of posts: its tables, its sessions, and its errors in the user's words.

Posts are in parts of a stretch of time, two tables each: posts_N has them as they are, words_N the hashes of their
terms with an inverted index. So no text is in an index, from which PostgreSQL never takes a key, and a purge rewrites
small tables without an index to build.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gigafactory.errors import UserError

if TYPE_CHECKING:
    import psycopg

    Session = psycopg.Connection[tuple[Any, ...]]

FORMAT = 1
SCHEMA = "gigafactory_feed"
_WRITERS = 0x47664665  # number of the lock that gives writers their turns
CONNECT_S, BUSY_S = 10, 10

_TABLES = f"""
CREATE SCHEMA {SCHEMA};
SET LOCAL search_path TO {SCHEMA};
CREATE TABLE ids(
  source text NOT NULL, id text NOT NULL, key bigint NOT NULL UNIQUE, rev bigint NOT NULL, author_id text NOT NULL,
  also text NOT NULL, PRIMARY KEY(id, source));
CREATE TABLE aliases(id text NOT NULL, source text NOT NULL, key bigint NOT NULL, PRIMARY KEY(id, source, key));
CREATE INDEX aliases_key ON aliases(key);
CREATE TABLE tombstones(
  id text NOT NULL, source text NOT NULL, rev bigint NOT NULL, at float8 NOT NULL, reason text NOT NULL,
  root text NOT NULL, by_author text, PRIMARY KEY(id, source));
CREATE INDEX tombstones_root ON tombstones(root, source);
CREATE INDEX tombstones_author ON tombstones(by_author, source) WHERE by_author IS NOT NULL;
CREATE TABLE authors(
  author_id text NOT NULL, source text NOT NULL, at float8 NOT NULL, reason text NOT NULL,
  PRIMARY KEY(author_id, source));
CREATE TABLE cursors(source text PRIMARY KEY, cursor text NOT NULL);
CREATE TABLE changes(
  serial bigint PRIMARY KEY, source text NOT NULL, id text NOT NULL, rev bigint, at float8 NOT NULL,
  reason text NOT NULL);
CREATE TABLE parts(n integer PRIMARY KEY, first bigint NOT NULL UNIQUE, posts bigint NOT NULL, dirty bigint NOT NULL);
CREATE TABLE state(
  format integer NOT NULL, posts bigint NOT NULL, serial bigint NOT NULL, newest_seen_at float8,
  horizon float8 NOT NULL);
INSERT INTO state VALUES({FORMAT}, 0, 0, NULL, 0);
INSERT INTO parts VALUES(0, 0, 0, 0);
"""
# Statistics of a column would keep samples of its texts, also of deleted ones.
_TEXTS = ("source", "id", "author", "author_id", "text", "url", "lang", "also", "refs")
_PART = """
CREATE TABLE posts_{n}(
  key bigint PRIMARY KEY, source text NOT NULL, id text NOT NULL, rev bigint NOT NULL, author text NOT NULL,
  author_id text NOT NULL, created_at float8 NOT NULL, seen_at float8 NOT NULL, text text NOT NULL, url text NOT NULL,
  lang text NOT NULL, also text NOT NULL, refs text NOT NULL, train_ok boolean NOT NULL);
ALTER TABLE posts_{n} {unsampled};
CREATE TABLE words_{n}(key bigint PRIMARY KEY, terms bigint[] NOT NULL);
CREATE INDEX words_{n}_terms ON words_{n} USING gin(terms) WITH (gin_pending_list_limit = 256);
"""


def connect(url: str) -> Session:
    """A session whose transactions are begun and ended by statements. Raises UserError where there is no server."""
    try:
        import psycopg
    except ImportError:
        raise UserError("a store in PostgreSQL needs: pip install 'gigafactory[postgres]'") from None
    with speaking(url):
        session = psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_S)
        session.execute(f"SET search_path TO {SCHEMA}")
        session.execute("SET enable_seqscan TO off")  # there is an index for every question; guesses are often wrong
        session.execute("SET jit TO off")  # short questions, which it would only delay
        session.execute(f"SET lock_timeout TO '{BUSY_S}s'")
    return session


def create(session: Session) -> None:
    """Makes the tables if they are not there."""
    with session.transaction():
        session.execute("SELECT pg_advisory_xact_lock(%s)", (_WRITERS,))
        if not exists(session):
            session.execute(_TABLES)
            create_part(session, 0)


def create_part(session: Session, n: int) -> None:
    unsampled = ", ".join(f"ALTER COLUMN {column} SET STATISTICS 0" for column in _TEXTS)
    session.execute(_PART.format(n=n, unsampled=unsampled))


def exists(session: Session) -> bool:
    return session.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.state",)).fetchone() != (None,)


def check_format(url: str, session: Session) -> None:
    """Raises UserError where the tables are of another version, or not there."""
    if not exists(session):
        raise UserError(f"{place(url)}: no posts yet; `gigafactory feed run` fills it")
    row = session.execute("SELECT format FROM state").fetchone()
    found = row[0] if row else 0
    if found != FORMAT:
        age = "a newer" if found > FORMAT else "an older"
        raise UserError(f"{place(url)}: store format {found} of {age} gigafactory, this one reads {FORMAT}")


@contextmanager
def transaction(session: Session) -> Iterator[None]:
    """A writer's turn: all others wait until it has ended."""
    with session.transaction():
        session.execute("SELECT pg_advisory_xact_lock(%s)", (_WRITERS,))
        yield


@contextmanager
def speaking(url: str) -> Iterator[None]:
    """Turns what the server says about itself, its disk or our rights into a UserError of one line."""
    import psycopg

    try:
        yield
    except (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege) as error:
        lines = str(error).strip().splitlines()
        raise UserError(f"{place(url)}: {lines[0] if lines else type(error).__name__}") from error
    except psycopg.ProgrammingError as error:
        if error.sqlstate is None:  # of the url, not of a statement
            raise UserError(f"feed.store.url: {str(error).strip().splitlines()[0]}") from error
        raise


def place(url: str) -> str:
    """The url without a password, which no message may show."""
    scheme, _, rest = url.partition("://")
    name, at, server = rest.rpartition("@")
    return f"{scheme}://{name.partition(':')[0]}{at}{server}".partition("?")[0]
