"""What a packed build finds neighbours with: only the references that may be found."""

import numpy as np
import pandas as pd

from geoloc.localizers.served import References
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.takedown import take_from_index


def test_references_that_may_not_be_found_are_not_packed(tmp_path):
    vectors = np.eye(6, dtype=np.float32)
    ids = np.array([f"p{i}" for i in range(6)], dtype=object)
    rows = pd.DataFrame({"photo_id": ids, "latitude": 1.0, "longitude": np.arange(6.0), "photographer": "a"})
    ReferenceIndex.build(Embeddings(ids, vectors), rows).save(tmp_path / "saved")
    (tmp_path / "packed").mkdir()
    References(tmp_path / "saved", among=np.arange(6) % 2 == 0).pack(tmp_path / "packed")
    packed = ReferenceIndex.load(tmp_path / "packed" / "index")
    assert sorted(packed.search(vectors[1:2], 6).photo_ids(3)[0]) == ["p0", "p2", "p4"]
    take_from_index(tmp_path / "packed" / "index", {"p0": "group"})
    assert sorted(ReferenceIndex.load(tmp_path / "packed" / "index").references["photo_id"]) == ["p2", "p4"]
    assert len(ReferenceIndex.load(tmp_path / "saved")) == 6
