// Functions of the page for the tab's events: following a training, uploads, the clicked row, and the values of the
// txt2img tab.

/** @type {string} the job that the page asks about */
let ti_train_followed = "";

/** @param {string} id */
function ti_train_click(id) {
    gradioApp().getElementById(id)?.click();
}

/**
 * Runs after the handlers that show a job: asks about it until it has ended, whenever the last answer said to.
 * gradio 3 never ends the tasks of handlers that wait, and then "Reload UI" waits for them: so the page asks again.
 * @param {string} id empty if the job has ended
 */
function ti_train_follow(id) {
    if (!id || id === ti_train_followed) return [];
    ti_train_followed = id;
    let last = "", unanswered = 0;
    function ask() {
        if (id !== ti_train_followed) return;
        /** @type {HTMLElement | null} */
        const said = gradioApp().querySelector("#ti_train_summary .ti-train-unfinished");
        const at = said?.dataset.at ?? "";
        // gradio 3 ends the typing in its table when a handler answers
        const typing = gradioApp().querySelector("#ti_train_captions :is(input, textarea):focus");
        const waits = typing || document.hidden;
        unanswered = waits || at !== last ? 0 : unanswered + 1;
        last = at;
        if (!said || unanswered > 5) { // the job has ended, or the WebUI
            ti_train_followed = "";
            return;
        }
        if (!waits) ti_train_click("ti_train_look");
        setTimeout(ask, waits ? 1000 : 1000 * Number(said.dataset.again));
    }
    setTimeout(ask, 300); // the page shows what the handler returned
    return []; // gradio expects the outputs' values
}

/**
 * Runs after the handler that starts the captioning: shows its progress, and what it wrote at its end.
 * @param {string} id empty if it did not start
 */
function ti_train_follow_captions(id) {
    const place = gradioApp().getElementById("ti_train_captions_written");
    if (id) requestProgress(id, place, null, () => ti_train_click("ti_train_captioned"), () => {});
    return [];
}

/** Has files that are dropped on the upload button uploaded. gradio 3 mixes up uploads that overlap: one at a time. */
function ti_train_take_dropped_files() {
    const place = /** @type {HTMLElement} */ (gradioApp().getElementById("ti_train_upload"));
    const input = /** @type {HTMLInputElement} */ (place.querySelector("input[type=file]"));
    input.addEventListener("change", () => {
        if (input.files?.length) place.classList.add("ti-train-uploading");
    });
    place.addEventListener("dragover", (event) => {
        event.preventDefault();
        if (event.dataTransfer && place.matches(".ti-train-uploading")) event.dataTransfer.dropEffect = "none";
    });
    place.addEventListener("drop", (event) => {
        event.preventDefault();
        if (!event.dataTransfer?.files.length) return;
        input.files = event.dataTransfer.files;
        input.dispatchEvent(new Event("change"));
    });
}

onUiLoaded(ti_train_take_dropped_files);

/** Runs when the uploaded files are in their folder, or are refused. */
function ti_train_uploaded() {
    gradioApp().getElementById("ti_train_upload")?.classList.remove("ti-train-uploading");
    return [];
}

/** Runs before the handler of a clicked row; returns its file. */
function ti_train_clicked_file() {
    return [ti_train_file];
}

/** @type {string} */
let ti_train_file = "";

/** @param {HTMLElement} row of the table of embeddings */
function ti_train_choose(row) {
    ti_train_file = row.dataset.file ?? "";
    ti_train_click("ti_train_choose");
}

/**
 * Runs when there are other preview prompts: they are to be used. A handler would answer after a click on "Train".
 * @param {string} prompts
 * @param {number} every steps between previews
 * @param {string} known the default prompts
 * @param {number} on
 */
function ti_train_previews_on(prompts, every, known, on) {
    return [every || ["", known].includes(prompts.trim()) ? every : on];
}

/**
 * Runs before the handler of "From txt2img"; returns its inputs: the embedding's name, and that tab's values.
 * @param {string} name
 */
function ti_train_of_txt2img(name) {
    /** @param {string} id */
    function value(id) {
        const field = gradioApp().querySelector(`#txt2img_${id} textarea, #txt2img_${id} input`);
        return /** @type {HTMLInputElement} */ (field).value;
    }
    const [seed, ...numbers] = ["seed", "steps", "cfg_scale", "width", "height"].map((id) => Number(value(id)));
    return [name, value("prompt"), value("neg_prompt"), seed, value("sampling"), ...numbers];
}
