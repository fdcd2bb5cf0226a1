"""The change of Horovod's sources that lets its thread sleep until there is work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools/horovod_wake.py"
# The places that are changed, as they stand in Horovod 0.28.1.
SOURCES = {
    "tensor_queue.h": "#include <mutex>\nclass TensorQueue {\n  void RemoveJoinTensor();\n\nprotected:\n"
    "  mutable std::mutex mutex_;\n};\n",
    "tensor_queue.cc": "Status TensorQueue::AddToTensorQueue(TensorTableEntry& e, Request& message) {\n"
    "  message_queue_.push(std::move(message));\n  return Status::OK();\n}\n"
    "Status TensorQueue::AddToTensorQueueMulti() {\n  for (;;) {\n    message_queue_.push(std::move(messages[i]));\n"
    "  }\n  return Status::OK();\n}\n"
    "void TensorQueue::PushMessageToQueue(Request& message) {\n  message_queue_.push(std::move(message));\n}\n"
    "// Remove JoinOp tensor from the table and execute the callback\n",
    "operations.cc": "bool RunLoopOnce(HorovodGlobalState& state) {\n"
    "  if (sleep_duration > std::chrono::steady_clock::duration::zero()) {\n"
    "    std::this_thread::sleep_for(sleep_duration);\n  }\n}\n",
}


def change(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, check=False)


@pytest.fixture
def sources(tmp_path):
    common = tmp_path / "horovod/common"
    common.mkdir(parents=True)
    for name, text in SOURCES.items():
        (common / name).write_text(text)
    return common


def test_both_ways_to_enqueue_wake_the_thread_and_a_message_put_back_does_not(sources):
    assert change(sources.parents[1]).returncode == 0
    queue = (sources / "tensor_queue.cc").read_text()
    assert queue.count("message_came_.notify_one();") == 2
    put_back = queue.split("PushMessageToQueue(Request& message) {")[1].split("}")[0]
    assert "notify" not in put_back
    assert "WaitForMessage" in (sources / "tensor_queue.h").read_text()
    loop = (sources / "operations.cc").read_text()
    assert loop.index("WaitForMessage") < loop.index("sleep_for")  # without the variable it sleeps as before
    assert 'getenv("HOROVOD_IDLE_CYCLE_TIME")' in loop


@pytest.mark.parametrize("name", list(SOURCES))
def test_sources_that_are_not_those_it_knows_stay_as_they_are(sources, name):
    (sources / name).write_text(
        SOURCES[name].replace("mutex", "lock").replace("message_queue_", "q").replace("sleep_", "s")
    )
    before = {path.name: path.read_text() for path in sources.iterdir()}
    result = change(sources.parents[1])
    assert result.returncode == 1
    assert f"horovod_wake: {name} has 0 times, not once" in result.stderr
    assert {path.name: path.read_text() for path in sources.iterdir()} == before


def test_changed_sources_are_not_changed_again(sources):
    assert change(sources.parents[1]).returncode == 0
    assert change(sources.parents[1]).returncode == 1
