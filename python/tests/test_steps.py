"""Coroutines that are run without a task each."""

import asyncio
import contextvars
import sys
import unittest

from plugincore.steps import Steps

variable = contextvars.ContextVar("variable", default="blank")


@unittest.skipIf(sys.version_info < (3, 11), "first steps are taken eagerly from Python 3.11 on")
class StepsTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.steps = Steps(asyncio.get_running_loop())
        self.ended = {}
        # What runs here has a current task of its own; calls come from a callback, which has none.
        self.loop = asyncio.get_running_loop()

    def begin(self, *coroutines):
        """Takes first steps as a callback would, and gives the tasks of those that wait."""
        tasks = self.loop.create_future()

        def run():
            found = []
            try:
                for coroutine in coroutines:
                    found.append(self.one(coroutine))
                tasks.set_result(found)
            except BaseException as error:
                tasks.set_exception(error)

        self.loop.call_soon(run)
        return tasks

    def one(self, coroutine):
        name = coroutine.__name__
        try:
            done, value = self.steps.first(coroutine)
        except BaseException as error:
            self.ended[name] = error
            self.steps.leave_no_trace()
            return None
        if done:
            self.ended[name] = value
            self.steps.leave_no_trace()
            return None

        def finish(result, error):
            self.ended[name] = result if error is None else error

        return self.steps.rest(coroutine, value, finish)

    async def all_ended(self, count):
        async with asyncio.timeout(5):
            while len(self.ended) < count:
                await asyncio.sleep(0)

    async def test_a_coroutine_that_does_not_wait_ends_at_once(self):
        async def quick():
            return 5

        self.assertEqual(await self.begin(quick()), [None])
        self.assertEqual(self.ended, {"quick": 5})

    async def test_the_current_task_is_a_real_one_before_and_after_waiting(self):
        async def look():
            first = asyncio.current_task()
            await asyncio.sleep(0)
            then = asyncio.current_task()
            await asyncio.sleep(0.001)
            return first, then, asyncio.current_task()

        tasks = await self.begin(look())
        await self.all_ended(1)
        self.assertIsInstance(tasks[0], asyncio.Task)
        for found in self.ended["look"]:
            self.assertIs(found, tasks[0])

    async def test_many_wait_at_the_same_time(self):
        event = asyncio.Event()

        async def wait(number):
            await event.wait()
            return number

        coroutines = [wait(number) for number in range(50)]
        for number, coroutine in enumerate(coroutines):
            coroutine.__name__ = f"wait{number}"
        await self.begin(*coroutines)
        self.assertEqual(self.ended, {})
        event.set()
        await self.all_ended(50)
        self.assertEqual(self.ended, {f"wait{number}": number for number in range(50)})

    async def test_time_limits_of_asyncio_work(self):
        async def limited():
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()

        async def waiting():
            return await asyncio.wait_for(asyncio.sleep(0.001, "in time"), 5)

        await self.begin(limited(), waiting())
        await self.all_ended(2)
        self.assertIsInstance(self.ended["limited"], TimeoutError)
        self.assertEqual(self.ended["waiting"], "in time")

    async def test_groups_of_tasks_work(self):
        async def grouped():
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(asyncio.sleep(0, number)) for number in range(3)]
            return [task.result() for task in tasks]

        await self.begin(grouped())
        await self.all_ended(1)
        self.assertEqual(self.ended["grouped"], [0, 1, 2])

    async def test_a_cancelled_coroutine_may_clean_up(self):
        cleaned = []

        async def careful():
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                cleaned.append(True)

        tasks = await self.begin(careful())
        tasks[0].cancel()
        await self.all_ended(1)
        self.assertIsInstance(self.ended["careful"], asyncio.CancelledError)
        self.assertEqual(cleaned, [True])

    async def test_cancelled_after_it_has_begun_to_run_by_itself(self):
        async def careful():
            await asyncio.Event().wait()

        tasks = await self.begin(careful())
        for _ in range(3):
            await asyncio.sleep(0)
        tasks[0].cancel()
        await self.all_ended(1)
        self.assertIsInstance(self.ended["careful"], asyncio.CancelledError)

    async def test_a_coroutine_that_cancels_its_own_task_harms_no_other(self):
        async def suicidal():
            asyncio.current_task().cancel()
            return "ended first"

        async def innocent():
            await asyncio.sleep(0)
            return "alive"

        async def waiting():
            asyncio.current_task().cancel()
            await asyncio.sleep(0)

        await self.begin(suicidal(), innocent())
        await self.all_ended(2)
        self.assertEqual(self.ended, {"suicidal": "ended first", "innocent": "alive"})
        self.ended.clear()
        # The same with a spare that has begun to wait for work.
        for _ in range(3):
            await asyncio.sleep(0)
        await self.begin(suicidal())
        await self.begin(innocent(), waiting())
        await self.all_ended(3)
        self.assertEqual(self.ended["innocent"], "alive")
        self.assertIsInstance(self.ended["waiting"], asyncio.CancelledError)

    async def test_variables_of_a_context_do_not_leak_into_the_next_call(self):
        async def leave():
            variable.set("left")
            return variable.get()

        async def leave_and_wait():
            variable.set("left")
            await asyncio.sleep(0)
            return variable.get()

        async def look():
            return variable.get()

        async def look_again():
            await asyncio.sleep(0)
            return variable.get()

        await self.begin(leave(), look(), leave_and_wait(), look_again())
        await self.all_ended(4)
        self.assertEqual(
            self.ended,
            {"leave": "left", "look": "blank", "leave_and_wait": "left", "look_again": "blank"},
        )

    async def test_an_error_is_that_of_its_own_call(self):
        async def at_once():
            raise ValueError("at once")

        async def later():
            await asyncio.sleep(0)
            raise SystemExit(3)

        await self.begin(at_once(), later())
        await self.all_ended(2)
        self.assertIsInstance(self.ended["at_once"], ValueError)
        self.assertIsInstance(self.ended["later"], SystemExit)


if __name__ == "__main__":
    unittest.main()
