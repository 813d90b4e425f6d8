"""The police: residents with their last border crossing. SYNTHETIC: made from a fixed seed, nobody is described.

The citizen numbers are of the form of GB 11643-1999 with right check characters, so that checks have something to
check; their order codes are counted up, not taken from anybody.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from typing import Any, Final

from bus import Publisher
from producers.report import Progress, say

SEED: Final = 20_090_801
RESIDENTS: Final = 5_000
_TODAY: Final = dt.date(2015, 1, 1)  # of the demo's data, so that every run makes the same residents
_FIRST_BIRTH: Final = dt.date(1935, 1, 1)
_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECKS: Final = "10X98765432"
# GB/T 2260: districts of Beijing, Shanghai, Guangzhou, Shenzhen, Chengdu, Wuhan, Xi'an, Hangzhou, Kunming, Urumqi.
_REGIONS: Final = (
    *("110101", "110105", "110108", "310101", "310104", "310115", "440103", "440106", "440304", "440305"),
    *("510104", "510107", "420102", "420111", "610102", "610113", "330102", "330106", "530102", "650102"),
)
_PORTS: Final = (
    *("首都机场", "浦东机场", "白云机场", "深圳湾", "罗湖", "皇岗"),
    *("拱北", "天府机场", "长水机场", "霍尔果斯", "满洲里", "瑞丽"),
)
_SURNAMES: Final = "王李张刘陈杨黄赵周吴徐孙马胡朱郭何罗高林郑梁谢宋唐许邓冯韩曹"
_COMPOUND: Final = ["欧阳", "上官", "司马", "诸葛"]
_GIVEN: Final = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉萍红鹏辉文博宇欣怡子涵梓萱浩然思雨佳琪"


def residents(count: int = RESIDENTS, *, seed: int = SEED) -> Iterator[dict[str, Any]]:
    """Synthetic residents with different citizen numbers; the same ones for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - reproducible on purpose, nothing secret
    taken: set[str] = set()
    while len(taken) < count:
        region = chance.choice(_REGIONS)
        birth = _FIRST_BIRTH + dt.timedelta(days=chance.randrange((_TODAY - _FIRST_BIRTH).days))
        citizen_id = _citizen_id(region, birth, chance.randrange(1, 1_000))
        if citizen_id not in taken:
            taken.add(citizen_id)
            person = {"citizen_id": citizen_id, "name": _name(chance), "birth_date": birth, "region_code": region}
            yield person | _travel(chance, len(taken), birth)


def _citizen_id(region: str, birth: dt.date, order: int) -> str:
    first17 = f"{region}{birth:%Y%m%d}{order:03}"
    total = sum(int(digit) * weight for digit, weight in zip(first17, _WEIGHTS, strict=True))
    return first17 + _CHECKS[total % 11]


def _name(chance: random.Random) -> str:
    surname = chance.choice(_COMPOUND) if chance.random() < 0.02 else chance.choice(_SURNAMES)
    return surname + "".join(chance.choice(_GIVEN) for _ in range(chance.choice((1, 2, 2))))


def _travel(chance: random.Random, number: int, birth: dt.date) -> dict[str, Any]:
    """Two in five have a passport; most of these have crossed the border, at the earliest at birth."""
    if chance.random() < 0.6:
        return {"passport_number": None, "last_crossing_date": None, "last_crossing_port": None}
    passport = f"E{chance.choice('ABCDEFGHJK')}{number:07}"
    if chance.random() < 0.2:
        return {"passport_number": passport, "last_crossing_date": None, "last_crossing_port": None}
    crossed = max(birth, _TODAY - dt.timedelta(days=chance.randrange(1, 3_650)))
    return {"passport_number": passport, "last_crossing_date": crossed, "last_crossing_port": chance.choice(_PORTS)}


def main() -> None:
    """Publishes the synthetic residents, and says that they are."""
    print("police.resident: synthetic residents from a fixed seed; no row describes a real person")
    with Publisher.connect("police") as publisher:
        say("police.resident", publisher.publish_many("resident", residents(), progress=Progress("police.resident")))


if __name__ == "__main__":
    main()
