// Makes the pages quicker and friendlier; every page works without it.
"use strict";

(() => {
  document.documentElement.classList.add("js");

  // A waiting time, as display.seconds() writes it: in seconds, a long one in minutes, or hours and minutes rounded up.
  const isLong = (seconds) => seconds > 120;
  const inUnits = (whole, unit, rest, smaller) => (rest ? `${whole} ${unit} ${rest} ${smaller}` : `${whole} ${unit}`);
  function inWords(seconds) {
    if (!isLong(seconds)) {
      return seconds === 1 ? "1 second" : `${seconds} seconds`;
    }
    if (seconds < 3600) {
      return inUnits(Math.floor(seconds / 60), "min", seconds % 60, "s");
    }
    const minutes = Math.ceil(seconds / 60);
    return inUnits(Math.floor(minutes / 60), "h", minutes % 60, "min");
  }
  const inTenths = (count, unit, round) => Math.max(1, round((count * 10) / unit)) / 10;
  const inMegabytes = (bytes, round = Math.round) => `${inTenths(bytes, 1024 ** 2, round)} MB`;
  // Of one file: a small one is not 0.1 MB.
  const inBytes = (count) =>
    count >= 100_000 ? inMegabytes(count) : count >= 1024 ? `${Math.round(count / 1024)} KB` : `${count} bytes`;

  // Calls onTick(secondsLeft) now and then once a second, until 0. Counts by the clock: a sleeping tab's timers stop.
  function countDown(seconds, onTick) {
    const end = Date.now() + seconds * 1000;
    let timer = 0;
    const tick = () => {
      const left = Math.max(0, Math.ceil((end - Date.now()) / 1000));
      if (left === 0) {
        window.clearInterval(timer);
      }
      onTick(left);
    };
    timer = window.setInterval(tick, 1000);
    tick();
    return () => window.clearInterval(timer);
  }

  function setUpTimes() {
    const format = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
    for (const element of document.querySelectorAll("time[data-local]")) {
      const moment = new Date(element.dateTime);
      if (!Number.isNaN(moment.valueOf())) {
        element.title = element.textContent.trim();
        element.textContent = format.format(moment);
      }
    }
  }

  function setUpCopying() {
    if (!navigator.clipboard) {
      return; // only there on https and localhost
    }
    for (const button of document.querySelectorAll("[data-copy]")) {
      const label = button.querySelector("span");
      button.hidden = false;
      button.setAttribute("aria-live", "polite");
      button.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent.trim());
          label.textContent = "Copied";
        } catch {
          label.textContent = "Not allowed";
        }
        window.setTimeout(() => {
          label.textContent = "Copy";
        }, 2000);
      });
    }
  }

  function setUpCountdowns() {
    for (const element of document.querySelectorAll("[data-countdown]")) {
      countDown(Number(element.dataset.countdown), (left) => {
        element.textContent = left > 0 ? inWords(left) : "a moment: you can go on now";
      });
    }
  }

  function setUpUpload(form) {
    const byId = (id) => document.getElementById(id);
    const input = form.querySelector("input[name=picture]");
    const camera = byId("camera");
    const zone = byId("drop-zone");
    const errors = byId("upload-error");
    const status = byId("upload-status");
    const progress = byId("upload-progress");
    const bar = byId("upload-bar");
    const stage = byId("upload-stage");
    const submit = byId("upload-submit");
    const preview = byId("preview");
    const submitText = submit.textContent;
    const maxBytes = Number(form.dataset.maxBytes);
    const maxMegapixels = Number(form.dataset.maxMegapixels);
    let chosen = null;
    let problem = "";
    let uploading = null;
    let waiting = false;
    let stopCountdown = () => {};

    const picture = document.createElement("img");
    picture.className = "preview__picture";
    picture.alt = "Preview of the chosen photo";
    preview.prepend(picture);

    // What is wrong with a photo; a waiting time stands until it is over.
    function clearError() {
      for (const notice of errors.querySelectorAll(":scope > :not([data-wait])")) {
        notice.remove();
      }
      input.setAttribute("aria-invalid", "false");
    }

    function showError(sentence) {
      clearError();
      const notice = document.createElement("p");
      notice.className = "notice notice--error";
      notice.textContent = sentence;
      errors.append(notice);
      if (sentence) {
        notice.scrollIntoView({ block: "nearest" }); // a waiting time comes without: the button says it as well
      }
      return notice;
    }

    // What can be said without the server. It checks again, by content; this only spares a pointless upload.
    function findProblem(file) {
      if (file.size === 0) {
        return "This file is empty.";
      }
      if (maxBytes && file.size > maxBytes) {
        // Rounded apart: what is just over the limit must not read as if it fitted.
        const size = inMegabytes(file.size, Math.ceil);
        return `This file is ${size}; at most ${inMegabytes(maxBytes, Math.floor)} are accepted. A smaller copy will do.`;
      }
      if (file.type && !file.type.startsWith("image/")) {
        return "This file is not a photo.";
      }
      return "";
    }

    function refuse(sentence) {
      problem = sentence;
      showError(sentence);
      input.setAttribute("aria-invalid", "true");
    }

    function describe(file, size) {
      const name = document.createElement("bdi"); // one from right to left must not turn the figures round
      name.textContent = file.name;
      byId("preview-name").replaceChildren(name, ` · ${size}${inBytes(file.size)}`);
    }

    function choose(file) {
      chosen = file;
      problem = "";
      clearError();
      if (picture.src) {
        URL.revokeObjectURL(picture.src);
      }
      preview.hidden = false;
      byId("drop-zone-empty").hidden = true;
      form.querySelector(".file-label__choose").hidden = true;
      form.querySelector(".file-label__change").hidden = false;
      describe(file, "");
      picture.hidden = true;
      picture.onload = () => {
        const width = picture.naturalWidth;
        const height = picture.naturalHeight;
        describe(file, `${width} × ${height} px · `);
        picture.hidden = false;
        if (maxMegapixels && width * height > maxMegapixels * 1e6 && !problem) {
          const megapixels = inTenths(width * height, 1e6, Math.ceil);
          refuse(`This photo has ${megapixels} megapixels; at most ${maxMegapixels} are accepted.`);
        }
      };
      picture.src = URL.createObjectURL(file);
      const sentence = findProblem(file);
      if (sentence) {
        refuse(sentence);
      } else {
        status.textContent = `${file.name} is chosen.`;
      }
    }

    // A dropped, pasted or photographed file goes into the one field that is sent, so that all ways in are the same.
    function take(file) {
      if (uploading) {
        return;
      }
      const transfer = new DataTransfer();
      transfer.items.add(file);
      input.files = transfer.files;
      choose(input.files[0]);
    }

    // While one is on its way, no other takes its place: the next try would send what the preview does not show.
    for (const field of [input, camera]) {
      field.addEventListener("click", (event) => {
        if (uploading) {
          event.preventDefault();
        }
      });
    }
    // The same file once more, changed meanwhile, is a new one to be sent; but for the browser nothing was changed.
    for (const kind of ["change", "cancel"]) {
      input.addEventListener(kind, () => {
        if (input.files.length > 0 && input.files[0] !== chosen) {
          choose(input.files[0]);
        }
      });
    }
    camera.addEventListener("change", () => {
      if (camera.files.length > 0) {
        take(camera.files[0]);
      }
    });

    let depth = 0; // dragenter and dragleave also fire for what lies inside the zone
    const over = (change) => {
      depth = Math.max(0, change);
      zone.classList.toggle("is-over", depth > 0);
    };
    zone.addEventListener("dragenter", () => over(depth + 1));
    zone.addEventListener("dragleave", () => over(depth - 1));
    const holdsFolder = (transfer) => [...transfer.items].some((item) => item.webkitGetAsEntry()?.isDirectory);
    // The whole window takes the drop: a photo that misses the zone must not replace the page.
    window.addEventListener("dragover", (event) => event.preventDefault());
    window.addEventListener("drop", (event) => {
      event.preventDefault();
      over(0);
      const files = event.dataTransfer ? event.dataTransfer.files : [];
      if (files.length > 1) {
        showError("One photo at a time, please.");
      } else if (files.length === 1 && holdsFolder(event.dataTransfer)) {
        showError("That was a folder. Drop one photo out of it.");
      } else if (files.length === 1) {
        take(files[0]);
        submit.focus();
      } else {
        showError("That was no file. Save the picture first, then drop or choose it.");
      }
    });
    document.addEventListener("paste", (event) => {
      const file = event.clipboardData && [...event.clipboardData.files].find((item) => item.type.startsWith("image/"));
      if (file) {
        event.preventDefault();
        take(file);
        submit.focus();
      }
    });

    // Locked, yet still focusable: a button that is disabled under the keyboard's focus would lose it.
    function lock(text) {
      submit.setAttribute("aria-disabled", "true");
      submit.textContent = text;
    }

    function unlock() {
      submit.removeAttribute("aria-disabled");
      submit.textContent = submitText;
    }

    function wait(seconds) {
      stopCountdown();
      waiting = true;
      errors.replaceChildren();
      const notice = showError("");
      notice.dataset.wait = "";
      // Said once when it appears and once when it is over; the seconds between are for the eye only.
      const spoken = document.createElement("span");
      spoken.className = "visually-hidden";
      spoken.textContent = `All uploads are used for now. The next one is free in ${inWords(seconds)}.`;
      const seen = document.createElement("span");
      seen.setAttribute("aria-hidden", "true");
      notice.append(spoken, seen);
      stopCountdown = countDown(seconds, (left) => {
        if (left > 0) {
          lock(isLong(left) ? `Wait ${inWords(left)}` : `Wait ${left} s`);
          seen.textContent = `All uploads are used for now. The next one is free in ${inWords(left)}.`;
          return;
        }
        waiting = false;
        unlock();
        notice.remove();
        status.textContent = "You can upload again.";
        showAllowance(null);
      });
    }

    function showAllowance(left) {
      const allowance = byId("allowance");
      if (!allowance) {
        return;
      }
      if (left === null) {
        allowance.hidden = true; // the count was of the page's load and is wrong by now
        return;
      }
      allowance.querySelector("strong").textContent = String(left);
      allowance.querySelectorAll(".pip").forEach((pip, place) => pip.classList.toggle("pip--left", place < left));
    }

    function finish() {
      uploading = null;
      progress.hidden = true;
      form.removeAttribute("aria-busy");
      if (!waiting) {
        unlock();
      }
    }

    function answered(request) {
      const body = request.response && typeof request.response === "object" ? request.response : {};
      if (body.url) {
        window.location.assign(body.url); // also when the analysis failed: the result page says so
        return;
      }
      finish();
      if (typeof body.uploads_left === "number") {
        showAllowance(body.uploads_left);
      }
      const seconds = Number(body.retry_after || request.getResponseHeader("Retry-After")) || 0;
      // One without seconds is the web server's: too many of a network's uploads are on their way.
      if (request.status === 429 && (body.retry_after || !body.error)) {
        showAllowance(0);
        wait(Math.max(1, Math.ceil(seconds)));
      } else if (request.status === 413) {
        refuse(body.error || `This file is too large; at most ${inMegabytes(maxBytes, Math.floor)} are accepted.`);
      } else if (body.error) {
        showError(body.error);
      } else if (request.status === 403) {
        showError("This page is too old to send from. Reload it and choose the photo again.");
      } else if (request.status > 500) {
        showError("The detector does not answer right now. Look first whether the photo is in your history already; if not, try again in a few seconds.");
      } else {
        showError("Something broke on our side and no verdict was given. Please try again.");
      }
    }

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (uploading || waiting) {
        return;
      }
      if (!chosen) {
        showError("Choose a photo first.");
        input.focus();
        return;
      }
      if (problem) {
        refuse(problem);
        return;
      }
      clearError();
      const request = new XMLHttpRequest();
      uploading = request;
      form.setAttribute("aria-busy", "true");
      lock("Uploading…");
      progress.hidden = false;
      bar.value = 0;
      stage.textContent = "Uploading";
      status.textContent = "Uploading the photo.";
      request.upload.addEventListener("progress", (step) => {
        if (step.lengthComputable) {
          const done = Math.floor((100 * step.loaded) / step.total);
          bar.value = done;
          stage.textContent = `Uploading, ${done} %`;
        }
      });
      request.upload.addEventListener("load", () => {
        bar.removeAttribute("value");
        stage.textContent = "Looking at the face";
        lock("Analysing…");
        status.textContent = "Uploaded. The photo is being analysed.";
      });
      request.addEventListener("load", () => answered(request));
      request.addEventListener("error", async () => {
        // A file that is no longer as it was chosen is not sent either, and never will be.
        const isReadable = await chosen.slice(0, 1).arrayBuffer().then(() => true, () => false);
        finish();
        if (isReadable) {
          showError("The server could not be reached. Check the connection and try again.");
        } else {
          refuse("This photo was changed, moved or deleted after it was chosen. Choose it again.");
        }
      });
      request.open("POST", form.action);
      request.responseType = "json";
      request.setRequestHeader("Accept", "application/json");
      request.send(new FormData(form));
    });

    // Coming back with the browser's Back button restores the page as it was left: in the middle of an upload.
    window.addEventListener("pageshow", (event) => {
      if (event.persisted) {
        finish();
        showAllowance(null);
      }
      // Kept by the browser over a reload or on the way back: put there without a word, and only after this script ran.
      if (!chosen && input.files.length > 0) {
        choose(input.files[0]);
      }
    });

    if (form.dataset.retryAfter) {
      wait(Number(form.dataset.retryAfter));
    }
  }

  setUpTimes();
  setUpCopying();
  setUpCountdowns();
  const upload = document.getElementById("upload-form");
  if (upload) {
    setUpUpload(upload);
  }
})();
