"""Trains the large tree model of the benchmark with XGBoost: 1,000 trees of depth 8. Usage: trees.py FOLDER

Writes big.json and big.ubj. With `--eland URL ID`, imports big.json with eland instead.
"""

import argparse
from pathlib import Path

import numpy
import xgboost

FEATURES = 30
NAMES = [f"feature_{index}" for index in range(FEATURES)]


def train(folder):
    random = numpy.random.default_rng(1)
    rows = random.normal(size=(20_000, FEATURES)).astype(numpy.float32)
    target = numpy.sin(3 * rows[:, 0]) * rows[:, 1] + rows[:, 2:8].prod(axis=1) + random.normal(size=len(rows))
    model = xgboost.XGBRegressor(n_estimators=1_000, max_depth=8, learning_rate=0.05, base_score=0.5,
                                 tree_method="hist", random_state=1)
    model.fit(rows, target)
    model.get_booster().feature_names = NAMES
    for form in ("json", "ubj"):
        model.save_model(folder / f"big.{form}")


def import_with_eland(folder, url, id):
    from eland.ml import MLModel
    from elasticsearch import Elasticsearch

    model = xgboost.XGBRegressor()
    model.load_model(folder / "big.json")
    MLModel.import_model(Elasticsearch(url, request_timeout=600), model_id=id, model=model, feature_names=NAMES, es_if_exists="replace",
                         es_compress_model_definition=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--eland", nargs=2, metavar=("URL", "ID"))
    given = parser.parse_args()
    if given.eland:
        import_with_eland(given.folder, *given.eland)
    else:
        train(given.folder)
