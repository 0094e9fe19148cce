"""Nobody who looks, waits and looks again misses what came in between, and nobody waits for what is another's."""

from __future__ import annotations

import asyncio
import threading

from common.news import News, Waiting

LONG_S = 60.0


def test_what_came_since_a_thread_last_waited_ends_its_wait_at_once():
    """Two threads wait for one thing after the other: what wakes one must not be lost to the other."""
    news = News()
    news.came()
    ended = []

    def wait():
        news.wait(LONG_S)
        ended.append(threading.get_ident())

    for _ in range(2):
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(LONG_S / 2)
        assert not thread.is_alive()
    assert len(ended) == 2


def test_a_wait_without_news_ends_by_itself():
    news = News()
    news.came()
    news.wait(LONG_S)
    news.wait(0.01)


def test_a_thread_tells_those_requests_alone_that_wait_for_its_topic():
    news, waiting = News(), Waiting()

    async def work():
        news.listen(waiting)
        with waiting.listening("mine") as mine, waiting.listening("another's") as others:
            threading.Thread(target=news.tell, args=("mine",)).start()
            await asyncio.wait_for(mine, LONG_S)
            return others.done()

    assert asyncio.run(work()) is False


def test_a_server_that_has_stopped_is_no_error():
    news, waiting = News(), Waiting()

    async def work():
        news.listen(waiting)

    asyncio.run(work())
    news.tell("mine")
