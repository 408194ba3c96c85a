"""Slices: what holds the loop up goes one piece at a time while somebody asks the API."""

import asyncio
import threading

import numpy as np

from streamer.engine.slices import LATELY_S, ROUNDS, Slices


async def rounds_of_pieces(slices: Slices, count: int) -> list[int]:
    """In which round of the loop each of so many pieces is done that all want to begin at once."""
    done: list[int] = []
    now = 0

    async def piece() -> None:
        await slices.wait()
        done.append(now)

    pieces = asyncio.gather(*(piece() for _ in range(count)))
    while not pieces.done():
        now += 1
        await asyncio.sleep(0)
    return done


async def test_an_answer_fits_between_two_pieces_while_somebody_asks() -> None:
    slices = Slices()
    slices.note_question()
    done = await rounds_of_pieces(slices, 4)
    assert min(np.diff(done)) >= ROUNDS


async def test_pieces_do_not_wait_for_each_other_when_nobody_asked_lately() -> None:
    now_s = 100.0
    slices = Slices(lambda: now_s)
    slices.note_question()
    now_s += LATELY_S
    assert len(set(await rounds_of_pieces(slices, 4))) == 1


async def test_one_that_gives_up_waiting_holds_up_nobody() -> None:
    slices = Slices()
    slices.note_question()
    first, second = (asyncio.ensure_future(slices.wait()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await second


async def test_what_leaves_the_interpreter_alone_is_done_beside_only_while_somebody_asks() -> None:
    slices, threads = Slices(), list[threading.Thread]()
    await slices.beside(lambda: threads.append(threading.current_thread()))
    slices.note_question()
    await slices.beside(lambda: threads.append(threading.current_thread()))
    assert threads[0] is threading.main_thread()
    assert threads[1] is not threading.main_thread()
