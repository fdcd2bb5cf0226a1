"""Changes the sources of Horovod so that its thread wakes when there is work, instead of looking every millisecond.

    python tools/horovod_wake.py SOURCE

On a core that also computes, each look costs: all ranks ask one another in a collective, and who asks first waits for
the others' threads, while its own rank should compute. Changed, the thread sleeps until a tensor is enqueued, at most
`HOROVOD_IDLE_CYCLE_TIME` milliseconds (`hpcgan.launch.topology`). Where that variable is not set, it is as before.
Ends with 1, and changes nothing, if these sources are not those that it knows.
"""

from __future__ import annotations

import sys
from pathlib import Path

#: By file: what stands there, and what comes in its place.
CHANGES = {
    "tensor_queue.h": [
        ("#include <mutex>\n", "#include <chrono>\n#include <condition_variable>\n#include <mutex>\n"),
        (
            "  void RemoveJoinTensor();\n",
            "  void RemoveJoinTensor();\n\n"
            "  // Sleep until there is a message, but not longer than the given time.\n"
            "  void WaitForMessage(std::chrono::steady_clock::duration limit);\n",
        ),
        (
            "  mutable std::mutex mutex_;\n",
            "  mutable std::mutex mutex_;\n\n  std::condition_variable message_came_;\n",
        ),
    ],
    "tensor_queue.cc": [
        (
            "  message_queue_.push(std::move(message));\n  return Status::OK();\n",
            "  message_queue_.push(std::move(message));\n  message_came_.notify_one();\n  return Status::OK();\n",
        ),
        (
            "    message_queue_.push(std::move(messages[i]));\n  }\n  return Status::OK();\n",
            "    message_queue_.push(std::move(messages[i]));\n  }\n"
            "  message_came_.notify_one();\n  return Status::OK();\n",
        ),
        (
            "// Remove JoinOp tensor from the table and execute the callback\n",
            "void TensorQueue::WaitForMessage(\n"
            "    std::chrono::steady_clock::duration limit) {\n"
            "  std::unique_lock<std::mutex> lock(mutex_);\n"
            "  message_came_.wait_for(lock, limit,\n"
            "                         [this] { return !message_queue_.empty(); });\n"
            "}\n\n"
            "// Remove JoinOp tensor from the table and execute the callback\n",
        ),
    ],
    "operations.cc": [
        (
            "bool RunLoopOnce(HorovodGlobalState& state) {\n",
            "namespace {\n"
            "// Milliseconds that the thread sleeps while nothing is enqueued; 0: it looks every cycle.\n"
            "double IdleCycleTimeMs() {\n"
            '  static const char* text = std::getenv("HOROVOD_IDLE_CYCLE_TIME");\n'
            "  static const double value = text == nullptr ? 0. : std::strtod(text, nullptr);\n"
            "  return value;\n"
            "}\n"
            "} // namespace\n\n"
            "bool RunLoopOnce(HorovodGlobalState& state) {\n",
        ),
        (
            "  if (sleep_duration > std::chrono::steady_clock::duration::zero()) {\n"
            "    std::this_thread::sleep_for(sleep_duration);\n"
            "  }\n",
            "  if (IdleCycleTimeMs() > 0.) {\n"
            "    state.process_set_table.Get(0).tensor_queue.WaitForMessage(\n"
            "        state.last_cycle_start - start_time +\n"
            "        std::chrono::microseconds(long(IdleCycleTimeMs() * 1000.)));\n"
            "  } else if (sleep_duration > std::chrono::steady_clock::duration::zero()) {\n"
            "    std::this_thread::sleep_for(sleep_duration);\n"
            "  }\n",
        ),
    ],
}


def changed(text: str, name: str) -> str:
    """The text of a file with its changes.

    Raises
    ------
    ValueError
        A place is not there, or there more than once.
    """
    for place, replacement in CHANGES[name]:
        if text.count(place) != 1:
            raise ValueError(f"{name} has {text.count(place)} times, not once: {place.strip().splitlines()[0]}")
        text = text.replace(place, replacement)
    return text


def main() -> int:
    """Change the sources in the folder that the command line names; the exit code."""
    folder = Path(sys.argv[1]) / "horovod/common"
    try:
        texts = {name: changed((folder / name).read_text(encoding="utf-8"), name) for name in CHANGES}
    except (OSError, ValueError) as error:
        print(f"horovod_wake: {error}", file=sys.stderr)
        return 1
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
