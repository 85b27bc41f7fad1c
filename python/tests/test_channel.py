"""Frames over a socket, however they are cut."""

import asyncio
import marshal
import socket
import unittest

from plugincore.channel import Channel


def frame(messages):
    """One frame as the server writes it."""
    payload = marshal.dumps(messages, 2)
    return len(payload).to_bytes(4, "little") + payload


class ChannelTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        ours.setblocking(False)
        self.server = ours
        self.batches = []
        self.changed = asyncio.Event()
        self.ended = asyncio.Event()
        self.channel = Channel(
            theirs, self.loop, self.take, self.ended.set, lambda message: (message[0], "instead")
        )
        self.channel.open()
        self.addCleanup(self.channel.close)

    def take(self, messages):
        self.batches.append(messages)
        self.changed.set()

    async def arrived(self, count):
        """The messages of the first ``count`` frames."""
        while len(self.batches) < count:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 5)
        return self.batches

    async def read(self, count):
        """Messages of ``count`` frames that the channel has sent."""
        data, found = b"", []
        while len(found) < count:
            data += await asyncio.wait_for(self.loop.sock_recv(self.server, 1 << 16), 5)
            while len(data) >= 4 and len(data) >= 4 + int.from_bytes(data[:4], "little"):
                end = 4 + int.from_bytes(data[:4], "little")
                found.append(marshal.loads(data[4:end]))
                data = data[end:]
        self.assertEqual(data, b"")
        return found

    async def test_a_frame_may_be_cut_at_every_byte(self):
        messages = [(1, "a", b"b", None), (2, {"k": "v"}, ("x",))]
        whole = frame(messages) + frame([(3,)])
        for at in range(1, len(whole)):
            self.batches.clear()
            self.server.send(whole[:at])
            # The first part has been read when the loop has looked at its sockets.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.server.send(whole[at:])
            self.assertEqual(await self.arrived(2), [messages, [(3,)]], at)

    async def test_byte_by_byte(self):
        for byte in frame([(1, "abc")]):
            self.server.send(bytes([byte]))
            await asyncio.sleep(0)
        self.assertEqual(await self.arrived(1), [[(1, "abc")]])

    async def test_many_frames_in_one_piece(self):
        frames = [[(number, "x" * number)] for number in range(200)]
        await self.loop.sock_sendall(self.server, b"".join(map(frame, frames)))
        self.assertEqual(await self.arrived(200), frames)

    async def test_a_frame_larger_than_the_buffer_and_small_ones_after_it(self):
        for size in (200_000, 262_144 - 20, 262_144, 3_000_000):
            self.batches.clear()
            large = [(1, b"x" * size)]
            await self.loop.sock_sendall(self.server, frame([(0,)]) + frame(large) + frame([(2,)]))
            self.assertEqual(await self.arrived(3), [[(0,)], large, [(2,)]], size)
        self.batches.clear()
        await self.loop.sock_sendall(self.server, frame([(3,)]))
        await self.arrived(1)
        self.assertLessEqual(len(self.channel._buffer), 262_144, "the buffer shrinks again")

    async def test_what_is_sent_in_one_turn_leaves_in_one_frame_and_in_order(self):
        for number in range(3):
            self.channel.send((number,))
        self.assertEqual(await self.read(1), [[(0,), (1,), (2,)]])
        self.channel.send((4,))
        self.channel.send((5, b"x" * 100_000), 100_000)
        self.channel.send((6,))
        frames = await self.read(3)
        self.assertEqual([message[0] for messages in frames for message in messages], [4, 5, 6])

    async def test_many_answers_leave_in_frames_of_a_bounded_length(self):
        answers = [(number, b"x" * 60_000) for number in range(20)]
        for answer in answers:
            self.channel.send(answer, len(answer[1]))
        frames = await self.read(5)
        self.assertEqual([message for messages in frames for message in messages], answers)
        self.assertEqual([len(messages) for messages in frames], [4] * 5)

    async def test_messages_without_a_body_count_as_well(self):
        for number in range(10_000):
            self.channel.send((number,))
        frames = await self.read(3)
        self.assertEqual(sum(map(len, frames)), 10_000)

    async def test_what_goes_wrong_with_one_frame_is_not_repeated(self):
        def fail(messages):
            self.take(messages)
            raise ValueError("no")

        self.channel._on_messages = fail
        self.loop.set_exception_handler(lambda loop, context: None)
        self.server.send(frame([(1,)]))
        await self.arrived(1)
        self.channel._on_messages = self.take
        self.server.send(frame([(2,)]))
        self.assertEqual(await self.arrived(2), [[(1,)], [(2,)]])

    async def test_a_message_without_a_form_does_not_take_others_with_it(self):
        for message in ((1,), (2, object()), (3,)):
            self.channel.send(message)
        self.assertEqual(await self.read(3), [[(1,)], [(2, "instead")], [(3,)]])

    async def test_a_server_that_reads_slowly_gets_everything(self):
        answers = [(number, 200, "a/b", bytes([number]) * 300_000) for number in range(10)]
        for answer in answers:
            self.channel.send(answer, len(answer[3]))
        self.assertTrue(self.channel._backlog, "the socket does not take everything at once")
        self.channel.send((99,))
        frames = await self.read(11)
        self.assertEqual([message for messages in frames for message in messages], [*answers, (99,)])

    async def test_the_end_of_the_server_is_told_once(self):
        self.server.close()
        await asyncio.wait_for(self.ended.wait(), 5)
        self.channel.send((1,))  # It goes nowhere and breaks nothing.
        await asyncio.sleep(0)


if __name__ == "__main__":
    unittest.main()
