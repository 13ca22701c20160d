// Turns each .hn-viewer of a page into three planes to scroll through. The still picture stays where this cannot run.
(function () {
  "use strict";
  const PLANES = ["Sagittal", "Coronal", "Axial"];

  function element(tag, properties, parent) {
    const made = Object.assign(document.createElement(tag), properties);
    if (parent) parent.appendChild(made);
    return made;
  }

  // A row of buttons of which one is pressed.
  function choice(parent, title, names, onChoose) {
    const group = element("div", { className: "hn-choice" }, parent);
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", title);
    element("span", { textContent: title }, group);
    const buttons = names.map((name) => element("button", { type: "button", textContent: name }, group));
    const press = (chosen) => {
      buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === chosen)));
      onChoose(chosen.textContent);
    };
    buttons.forEach((button) => button.addEventListener("click", () => press(button)));
    press(buttons[0]);
  }

  // One slider a plane: the way through the volume for the keyboard and for fingers.
  function sliders(parent, view, shape) {
    return PLANES.map((plane, axis) => {
      const label = element("label", { textContent: plane + " " }, parent);
      const slider = element("input", { type: "range", min: 0, max: shape[axis] - 1, step: 1 }, label);
      slider.addEventListener("input", () => {
        const place = [...view.scene.crosshairPos];
        place[axis] = (Number(slider.value) + 0.5) / shape[axis];
        view.scene.crosshairPos = place;
        view.createOnLocationChange();
        view.drawScene();
      });
      return slider;
    });
  }

  function lookup(colours, names) {
    const column = (i) => colours.map((colour) => colour[i]);
    return { R: column(0), G: column(1), B: column(2), A: column(3), I: colours.map((_, i) => i), labels: names };
  }

  async function start(box) {
    const { Niivue, NVImage } = window.niivue;
    const data = JSON.parse(box.querySelector("script").textContent);
    const stage = element("div", { className: "hn-stage" });
    const canvas = element("canvas", { tabIndex: 0 }, stage);
    canvas.setAttribute("aria-label", box.getAttribute("aria-label"));
    canvas.setAttribute("role", "img");
    const controls = element("div", { className: "hn-controls" });
    const place = element("p", { className: "hn-place" });
    place.setAttribute("role", "status");
    box.append(stage, controls, place);
    try {
      const view = new Niivue({ logLevel: "error", crosshairWidth: 0.5, crosshairColor: [1, 1, 1, 0.5], isRadiologicalConvention: true, backColor: [0, 0, 0, 1], show3Dcrosshair: false, dragAndDropEnabled: false });
      await view.attachToCanvas(canvas);
      view.addVolume(await NVImage.loadFromBase64({ base64: data.image, name: "ct.nii.gz", colormap: "gray" }));
      const labels = await NVImage.loadFromBase64({ base64: data.labels, name: "labels.nii.gz", opacity: 0.45 });
      labels.setColormapLabel(lookup(Object.values(data.colours)[0], data.names));
      view.addVolume(labels);
      view.setInterpolation(false);
      view.overlayOutlineWidth = 0.6;
      view.setSliceType(view.sliceTypeMultiplanar);
      view.opts.multiplanarShowRender = 0;
      const shape = labels.hdr.dims.slice(1, 4);
      choice(controls, "Show", Object.keys(data.colours), (name) => {
        labels.setColormapLabel(lookup(data.colours[name], data.names));
        view.updateGLVolume();
      });
      choice(controls, "Window", Object.keys(data.windows), (name) => {
        [view.volumes[0].cal_min, view.volumes[0].cal_max] = data.windows[name];
        view.updateGLVolume();
      });
      const ways = sliders(element("div", { className: "hn-sliders" }, controls), view, shape);
      view.onLocationChange = (where) => {
        const voxel = where.vox.map((v, axis) => Math.max(0, Math.min(shape[axis] - 1, Math.round(v))));
        ways.forEach((slider, axis) => { slider.value = voxel[axis]; });
        const value = Math.round(where.values[1] ? where.values[1].value : 0);
        place.textContent = `${Math.round(where.values[0].value)} HU, ${data.names[value] || ""}`;
        box.dataset.voxel = voxel.join(",");
      };
      view.scene.crosshairPos = data.start.map((voxel, axis) => (voxel + 0.5) / shape[axis]);
      view.createOnLocationChange();
      view.drawScene();
      box.dataset.ready = "yes";
    } catch (fault) {
      [stage, controls, place].forEach((part) => part.remove());
      console.warn("viewer: " + fault);
      box.dataset.ready = "no";
    }
  }

  function begin() {
    const boxes = document.querySelectorAll(".hn-viewer");
    const probe = document.createElement("canvas");
    if (!window.niivue || !probe.getContext("webgl2")) return;
    const watch = new IntersectionObserver((entries) => entries.filter((e) => e.isIntersecting).forEach((e) => {
      watch.unobserve(e.target);
      start(e.target);
    }), { rootMargin: "200px" });
    boxes.forEach((box) => watch.observe(box));
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
