"""Makes docs/overview.svg, the picture of the README, from a drawn competition and a report on it:

python scripts/overview.py data/ablation/train report.html > docs/overview.svg
"""

import base64
import re
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from dataset import find_images
from photos.reading import default_matte_dir, matte_path, read_matte, read_photo

METHOD, WIDTH, COLUMNS = "rembg_grabcut", 840, 10
root, names = find_images(sys.argv[1])
columns = []
for name in names[:: len(names) // COLUMNS + 1]:  # not a multiple of 7: all mask states
    photo = read_photo(root / name)
    alpha = read_matte(matte_path(default_matte_dir(root), METHOD, name))[..., None] / 255
    columns.append(np.vstack([photo, 255 * alpha.repeat(3, 2), photo * alpha + 225 * (1 - alpha)]))
people = np.hstack(columns)[..., ::-1]
height = WIDTH * people.shape[0] // people.shape[1]
people = cv2.resize(people, (2 * WIDTH, 2 * height), interpolation=cv2.INTER_AREA)
jpeg = base64.b64encode(cv2.imencode(".jpg", people, [cv2.IMWRITE_JPEG_QUALITY, 75])[1]).decode()
page = Path(sys.argv[2]).read_text(encoding="utf-8")
figure = re.search(r'<svg role="img" aria-label="Did it help.*?</svg>', page, re.S)[0]
box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', figure)
strip = round(WIDTH * float(box[2]) / float(box[1]))
figure = re.sub(r'(width|height)="[^"]*pt"', "", figure, count=2)
print(f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height + 20 + strip}">
<rect width="100%" height="100%" fill="white"/>
<image width="{WIDTH}" height="{height}" href="data:image/jpeg;base64,{jpeg}"/>
<svg y="{height + 20}" width="{WIDTH}" height="{strip}">{figure}</svg>
</svg>""")
