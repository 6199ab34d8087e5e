"""Stands in for the sample stage: writes a tiny corpus of made-up text in the three kinds of source."""

import argparse
import json
import random
import sqlite3
from pathlib import Path

WHO = ["我们", "他的朋友", "王小明", "李老师", "这位先生", "很多人", "市长", "工程师"]
WHERE = ["在北京", "在上海", "在学校里", "在旅馆", "在书店", "在火车上"]
WHAT = ["看了一本书", "吃了早饭", "讨论了新的计划", "买了一台电脑", "听了音乐", "写了一封信", "参加了会议"]
WHEN = ["今天", "昨天", "去年", "每天早上", "星期一", "三月"]
ENGLISH = ["We are playing cards in the old city.", "The engineer walked to the station and waited.", "Reading is fun."]
GOOD = ["非常好", "让人满意", "值得推荐", "真漂亮", "很舒服"]
BAD = ["非常差", "让人失望", "不要购买", "真难看", "很糟糕"]
THING = ["酒店", "这本书", "手机", "早饭", "服务", "房间", "电影"]


def sentence(rng: random.Random) -> str:
    """One sentence; some are English."""
    if rng.random() < 0.1:
        return rng.choice(ENGLISH)
    return f"{rng.choice(WHEN)}{rng.choice(WHO)}{rng.choice(WHERE)}{rng.choice(WHAT)}。"


def write(out: Path) -> None:
    """Write text files, JSON Lines and a SQLite table."""
    rng = random.Random(0)
    (out / "newspaper").mkdir(parents=True)
    for part in range(2):
        lines = ["".join(sentence(rng) for _ in range(rng.randint(2, 5))) for _ in range(120)]
        (out / f"newspaper/part-{part:02d}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with (out / "entities.jsonl").open("w", encoding="utf-8") as file:
        for number in range(120):
            name, place = rng.choice(["王小明", "李大年"]), rng.choice(["北京", "上海"])
            text = f"{name}在{place}住了{number}年。"
            spans = [[0, 3, "PER"], [4, 6, "LOC"]]
            words = [name, "在", place, "住", "了", str(number), "年", "。"]
            file.write(json.dumps({"text": text, "entities": spans, "words": words}, ensure_ascii=False) + "\n")
    with sqlite3.connect(out / "reviews.sqlite") as database:
        database.execute("CREATE TABLE reviews (id INTEGER PRIMARY KEY, text TEXT NOT NULL, polarity TEXT NOT NULL)")
        for number in range(400):
            label = rng.choice(["positive", "negative"])
            words = GOOD if label == "positive" else BAD
            visit = f"{rng.choice(WHEN)}{rng.choice(WHO)}第{number}次来"
            text = f"{rng.choice(THING)}{rng.choice(words)}，{visit}，{rng.choice(words)}。"
            database.execute("INSERT INTO reviews VALUES (?, ?, ?)", (number, text, label))
    database.close()
    (out / "manifest.json").write_text("{}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    write(parser.parse_args().out)
