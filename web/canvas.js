// Mouse wheel and middle button over an element on a node: they go on to the canvas, as from the host's text boxes.

import { app } from "../../scripts/app.js";

const MIDDLE = 1, MIDDLE_HELD = 4; // MouseEvent.button, MouseEvent.buttons

/** @param {HTMLElement} element */
export function passToCanvas(element) {
  element.dataset.captureWheel = "true"; // Nodes 2.0: while it has the focus, the wheel scrolls it
  element.addEventListener("wheel", (event) => {
    if (element.closest(".lg-node")) return; // Nodes 2.0 does the rest
    event.stopPropagation();
    if (!event.ctrlKey && scrolls(event, element)) return;
    event.preventDefault();
    app.canvas.processMouseWheel(event);
  }, { passive: false });
  element.addEventListener("pointerdown", (event) => {
    if (event.button !== MIDDLE) return;
    event.preventDefault(); // the browser's own scrolling
    app.canvas.processMouseDown(event);
  });
  element.addEventListener("pointermove", (event) => {
    if (event.buttons & MIDDLE_HELD) app.canvas.processMouseMove(event);
  });
  element.addEventListener("pointerup", (event) => {
    if (event.button === MIDDLE) app.canvas.processMouseUp(event);
  });
}

/** Whether a part of the element below the pointer can be scrolled in the wheel's direction. @param {WheelEvent} event @param {HTMLElement} element */
function scrolls({ target, deltaX, deltaY }, element) {
  const across = Math.abs(deltaX) > Math.abs(deltaY);
  for (let part = /** @type {HTMLElement | null} */ (target); part && element.contains(part); part = part.parentElement) {
    const style = getComputedStyle(part);
    if (across ? part.scrollWidth > part.clientWidth && style.overflowX !== "visible" && style.overflowX !== "hidden"
      : part.scrollHeight > part.clientHeight && style.overflowY !== "visible" && style.overflowY !== "hidden") return true;
  }
  return false;
}
