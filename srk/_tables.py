"""What type checkers take `srk.processes`, `srk.tableaus` and `srk.noise` for.

At run time these are packages that can be called, and return the registry of what is in them. A
type checker knows no module that can be called. It is shown a class instead: calling it gives a
registry, and its attributes are the public names of the package. `from srk.processes import VP`
is not touched by this.
"""

from __future__ import annotations

import srk.noise as _noise
import srk.processes as _processes
import srk.tableaus as _tableaus
from srk.registry import Registry


class processes(Registry[type[_processes.ForwardProcess]]):
    """The package of the forward processes, and the table of their names."""

    from srk.processes import (
        CLD as CLD,
    )
    from srk.processes import (
        EDM as EDM,
    )
    from srk.processes import (
        OU as OU,
    )
    from srk.processes import (
        OUVE as OUVE,
    )
    from srk.processes import (
        SO3 as SO3,
    )
    from srk.processes import (
        VE as VE,
    )
    from srk.processes import (
        VP as VP,
    )
    from srk.processes import (
        AroundMean as AroundMean,
    )
    from srk.processes import (
        Flow as Flow,
    )
    from srk.processes import (
        ForwardProcess as ForwardProcess,
    )
    from srk.processes import (
        Level as Level,
    )
    from srk.processes import (
        LinearProcess as LinearProcess,
    )
    from srk.processes import (
        ManifoldProcess as ManifoldProcess,
    )
    from srk.processes import (
        PhaseProcess as PhaseProcess,
    )
    from srk.processes import (
        Product as Product,
    )
    from srk.processes import (
        Shifted as Shifted,
    )
    from srk.processes import (
        SubVP as SubVP,
    )
    from srk.processes import (
        Torus as Torus,
    )
    from srk.processes import (
        VarianceExploding as VarianceExploding,
    )
    from srk.processes import (
        VariancePreserving as VariancePreserving,
    )
    from srk.processes import (
        VPCosine as VPCosine,
    )
    from srk.processes import (
        VPDiscrete as VPDiscrete,
    )

    def __init__(self) -> None: ...

    PROCESSES = _processes.PROCESSES
    process = staticmethod(_processes.process)
    register_process = staticmethod(_processes.register_process)
    statistic = staticmethod(_processes.statistic)


class noise(Registry[type[_noise.NoiseSource]]):
    """The package of the noise sources, and the table of their names."""

    from srk.noise import (
        BasisNoise as BasisNoise,
    )
    from srk.noise import (
        BrownianNoise as BrownianNoise,
    )
    from srk.noise import (
        CallableNoise as CallableNoise,
    )
    from srk.noise import (
        GeneratorNoise as GeneratorNoise,
    )
    from srk.noise import (
        KeyedNoise as KeyedNoise,
    )
    from srk.noise import (
        NoiseSource as NoiseSource,
    )
    from srk.noise import (
        ReplayNoise as ReplayNoise,
    )
    from srk.noise import (
        ZeroNoise as ZeroNoise,
    )

    def __init__(self) -> None: ...

    NOISES = _noise.NOISES
    noise_source = staticmethod(_noise.noise_source)
    part_seed = staticmethod(_noise.part_seed)
    register_noise = staticmethod(_noise.register_noise)


class tableaus(Registry[_tableaus.StochasticTableau]):
    """The package of the tableaus, and the table of their names."""

    from srk.tableaus import (
        Condition as Condition,
    )
    from srk.tableaus import (
        StochasticTableau as StochasticTableau,
    )
    from srk.tableaus import (
        TableauArrays as TableauArrays,
    )
    from srk.tableaus import (
        TableauReport as TableauReport,
    )

    def __init__(self) -> None: ...

    AWR3 = _tableaus.AWR3
    EULER = _tableaus.EULER
    HEUN = _tableaus.HEUN
    MIDPOINT = _tableaus.MIDPOINT
    ORDER_CONDITIONS = _tableaus.ORDER_CONDITIONS
    SEA = _tableaus.SEA
    SHARK = _tableaus.SHARK
    SOSRA = _tableaus.SOSRA
    SOSRA2 = _tableaus.SOSRA2
    SPARK = _tableaus.SPARK
    SRA1 = _tableaus.SRA1
    SRA2 = _tableaus.SRA2
    SRA3 = _tableaus.SRA3
    TABLEAUS = _tableaus.TABLEAUS
    Entry = _tableaus.Entry
    check_tableau = staticmethod(_tableaus.check_tableau)
    register_tableau = staticmethod(_tableaus.register_tableau)
    require_order = staticmethod(_tableaus.require_order)
