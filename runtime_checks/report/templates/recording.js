"use strict";
(() => {
  const recordings = JSON.parse(document.getElementById("report-data").textContent);
  const MAX_ZOOM = 64;
  const players = new Map();

  const clock = (seconds) => {
    const tenths = Math.round(seconds * 10);
    const whole = Math.floor(tenths / 10);
    return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}.${tenths % 10}`;
  };

  /* The last point at or before a time; points are sorted by time. */
  const valueAt = (points, time) => {
    let low = 0, high = points.length - 1, found = null;
    while (low <= high) {
      const middle = (low + high) >> 1;
      if (points[middle][0] <= time) { found = points[middle][1]; low = middle + 1; }
      else high = middle - 1;
    }
    return found;
  };

  const describe = (data, time) => {
    const parts = data.rows.map((row) => {
      const speaking = row.turns.filter(([start, end]) => start <= time && time < end);
      const who = [...new Set(speaking.map((turn) => turn[2]))].sort().join("+") || "silence";
      const value = valueAt(data.differences[row.source] || [], time);
      return `${row.source} ${who}` + (value === null ? "" : ` (score off by ${value.toPrecision(3)})`);
    });
    return `${clock(time)}: ${parts.join(" · ")}`;
  };

  const attach = (figure) => {
    const data = recordings[Number(figure.dataset.index)];
    const duration = data.duration_s;
    const audio = figure.querySelector("audio");
    const button = figure.querySelector(".play");
    const tracks = figure.querySelector(".tracks");
    const scroll = figure.querySelector(".scroll");
    const playhead = figure.querySelector(".playhead");
    const crosshair = figure.querySelector(".crosshair");
    const readout = figure.querySelector(".readout");
    let position = 0, zoom = 1;

    const show = () => {
      const left = (100 * position) / duration;
      playhead.style.left = `${left}%`;
      figure.querySelector(".clock").textContent = clock(position);
      tracks.setAttribute("aria-valuenow", position.toFixed(2));
      tracks.setAttribute("aria-valuetext", clock(position));
    };
    const reveal = () => {
      const x = (position / duration) * tracks.offsetWidth;
      if (x < scroll.scrollLeft || x > scroll.scrollLeft + scroll.clientWidth)
        scroll.scrollLeft = x - scroll.clientWidth * 0.1;
    };
    const seek = (time) => {
      position = Math.min(Math.max(time, 0), duration);
      if (audio) audio.currentTime = Math.min(position, audio.duration || duration);
      show();
      reveal();
      readout.textContent = describe(data, position);
    };
    const timeOf = (event) => {
      const box = tracks.getBoundingClientRect();
      return ((event.clientX - box.left) / box.width) * duration;
    };
    const toggle = () => {
      if (!audio) return;
      if (!audio.paused) { audio.pause(); return; }
      for (const other of players.values()) if (other.audio && other.audio !== audio) other.audio.pause();
      if (position >= duration - 0.05) seek(0);
      audio.play();
    };
    const follow = () => {
      position = Math.min(audio.currentTime, duration);
      show();
      reveal();
      if (!audio.paused) requestAnimationFrame(follow);
    };

    if (audio) {
      button.addEventListener("click", toggle);
      audio.addEventListener("play", () => {
        figure.classList.add("playing");
        button.setAttribute("aria-label", `Pause ${data.uri}`);
        requestAnimationFrame(follow);
      });
      audio.addEventListener("pause", () => {
        figure.classList.remove("playing");
        button.setAttribute("aria-label", `Play ${data.uri}`);
      });
    }
    tracks.addEventListener("click", (event) => seek(timeOf(event)));
    tracks.addEventListener("pointermove", (event) => {
      const time = Math.min(Math.max(timeOf(event), 0), duration);
      crosshair.hidden = false;
      crosshair.style.left = `${(100 * time) / duration}%`;
      readout.textContent = describe(data, time);
    });
    tracks.addEventListener("pointerleave", () => { crosshair.hidden = true; });
    tracks.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 0.1 : 1;
      const actions = {
        ArrowLeft: () => seek(position - step), ArrowRight: () => seek(position + step),
        Home: () => seek(0), End: () => seek(duration), " ": toggle,
      };
      if (!(event.key in actions) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      actions[event.key]();
    });
    for (const zoomButton of figure.querySelectorAll("[data-zoom]"))
      zoomButton.addEventListener("click", () => {
        zoom = Math.min(Math.max(zoom * Number(zoomButton.dataset.zoom), 1), MAX_ZOOM);
        tracks.style.width = `${100 * zoom}%`;
        figure.querySelector(".zoom output").textContent = `${zoom}×`;
        scroll.scrollLeft = (position / duration) * tracks.offsetWidth - scroll.clientWidth / 2;
      });
    players.set(figure.id, { seek, audio });
  };

  document.querySelectorAll(".recording").forEach(attach);
  for (const link of document.querySelectorAll("a.seek"))
    link.addEventListener("click", () => {
      const player = players.get(link.dataset.recording);
      if (player) player.seek(Number(link.dataset.time));
    });
})();
