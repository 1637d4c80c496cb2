"""A whole cluster simulated from one seed: the real ``Broker`` objects, unmodified, in one process and one thread.

How the pieces fit:

- ``events.EventQueue`` is the only thing that happens: one heap of events in true seconds. A step is one event.
- ``world.World(seed, settings)`` owns the queue, one ``random.Random(seed)`` that decides everything, the nodes, the
  ensemble (``tests.fakes.zookeeper``), the network, the trace and the checkers; it has every fault as a method.
- ``process.Node`` is a machine: a ``CrashDisk`` and drifting clocks. ``process.Process`` is one run of a broker on it:
  a reactor, a thread pool, a ZooKeeper session and sockets that are all events which belong to that process. Killing
  it drops its events and closes its connections as a kernel does; a paused one keeps its events until SIGCONT.
- ``network.Network`` carries bytes between processes: late, in pieces, with backpressure, cut, reset, refused.
- ``trace.Trace`` has a line for every step.

A client of the simulation is not a process: it acts in events made by ``world.call_later(delay, kind, function)``. What
it does to a broker has to happen in that broker's process, so that a kill drops it and a pause holds it:
``node.process.call(delay, kind, text, function, *args)``. A result that comes from a broker is worth something only if
``process.is_alive`` held when it was sent. ``node.is_ready`` says whether the Kafka listener would serve at all.

An exception that a broker does not handle, its ``fatal`` included, is ``Violation`` 0 out of ``world.step()``; checkers
raise the others.
"""
