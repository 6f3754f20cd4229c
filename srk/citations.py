"""What to cite: the BibTeX entries behind a solver, a tableau or a process."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from srk.errors import UnknownNameError
from srk.integrators import SOLVERS
from srk.processes import OUVE, PROCESSES, SO3, Torus
from srk.tableaus import TABLEAUS

KEY = re.compile(r"@\w+\{(?P<key>(?P<author>[a-z]+)(?P<year>\d{4})?[a-z]*),")
EPRINT = re.compile(r"eprint = \{(.+)\}")


def cite(name: str) -> str:
    """The works to cite for a solver, tableau or process, in BibTeX; `cite("srk")` is this package.

    Works that this package knows are found in the `reference` of a solver or tableau, and in the
    docstring of a process after `Source:`, by arXiv number or by author and year; another reference
    is quoted in a `@misc`, so methods that you registered have a citation too.

    Arguments:
        name: a name in `srk.solvers()`, `srk.tableaus()` or `srk.processes()`, or "srk".

    Returns:
        The entries, with an empty line between two.

    Raises:
        UnknownNameError: nothing of that name is registered; the message has the names nearest to
            it.

    Examples:
        >>> import srk
        >>> print(srk.cite("deis-2"))
        @inproceedings{zhang2023fast,
          title = {Fast Sampling of Diffusion Models with Exponential Integrator},
          author = {Zhang, Qinsheng and Chen, Yongxin},
          booktitle = {International Conference on Learning Representations},
          year = {2023},
          eprint = {2204.13902},
          archiveprefix = {arXiv}
        }
    """
    texts = {"srk": "srk"}
    texts |= {
        process: (cls.__doc__ or "").partition("Source:")[2].partition("Examples:")[0]
        for process, cls in {**PROCESSES, **{cls.name: cls for cls in (OUVE, SO3, Torus)}}.items()
    }
    texts |= {tableau: table.reference for tableau, table in TABLEAUS.items()}
    texts |= {solver: method.reference for solver, method in SOLVERS.items()}
    if not isinstance(name, str) or name not in texts:
        raise UnknownNameError(
            "solver, tableau or process",
            name,
            texts,
            "srk.solvers(), srk.tableaus() and srk.processes()",
        )
    found = [entry for entry in works() if _names(texts[name], entry)]
    if found:
        return "\n\n".join(found)
    return (
        f"@misc{{{name},\n  title = {{{name}}},\n  note = {{{' '.join(texts[name].split())}}}\n}}"
    )


@cache
def works() -> tuple[str, ...]:
    """The BibTeX entries of all works that registered methods rest on (references.bib)."""
    return tuple(
        files("srk").joinpath("references.bib").read_text(encoding="utf-8").strip().split("\n\n")
    )


def _names(text: str, entry: str) -> bool:
    """Whether a reference names a work.

    An arXiv number, or first author and year; this package and k-diffusion by their names.
    """
    key = KEY.match(entry)
    assert key is not None, entry
    if key["key"] == "srk":
        return re.match(r"srk\b", text) is not None
    if key["key"] == "crowson2022kdiffusion":
        return "k-diffusion" in text
    eprint = EPRINT.search(entry)
    if eprint is not None:
        return eprint[1] in text
    return re.search(rf"\b{key['author']}\b[^;]*\b{key['year']}\b", text, re.IGNORECASE) is not None
