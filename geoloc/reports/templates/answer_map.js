document.querySelectorAll("svg.world").forEach(function(svg){
  var home=[-180,-84,360,142],box=home.slice(),card=svg.closest(".card");
  function show(){svg.setAttribute("viewBox",box.join(" "))}
  function zoom(f,x,y){var w=Math.min(360,Math.max(.5,box[2]*f));f=w/box[2];box=[x-(x-box[0])*f,y-(y-box[1])*f,w,box[3]*f];show()}
  function at(e){var p=new DOMPoint(e.clientX,e.clientY).matrixTransform(svg.getScreenCTM().inverse());return[p.x,p.y]}
  svg.addEventListener("wheel",function(e){e.preventDefault();var p=at(e);zoom(e.deltaY>0?1.25:.8,p[0],p[1])},{passive:false});
  var held=null;
  svg.addEventListener("pointerdown",function(e){held=at(e);svg.setPointerCapture(e.pointerId)});
  svg.addEventListener("pointermove",function(e){if(held){var p=at(e);box[0]+=held[0]-p[0];box[1]+=held[1]-p[1];show()}});
  svg.addEventListener("pointerup",function(){held=null});
  card.querySelectorAll("button").forEach(function(b){b.addEventListener("click",function(){
    var d=b.dataset.do,cx=box[0]+box[2]/2,cy=box[1]+box[3]/2;
    if(d==="world"){box=home.slice();show()}
    else if(d==="answer"){box=[+svg.dataset.x-10,+svg.dataset.y-4,20,8];show()}
    else zoom(d==="in"?.6:1.7,cx,cy)})});
  card.querySelectorAll("li[data-n]").forEach(function(li){
    var dot=svg.querySelector('.dot[data-n="'+li.dataset.n+'"]');
    function mark(on){return function(){dot.classList.toggle("lit",on)}}
    li.addEventListener("mouseenter",mark(true));li.addEventListener("mouseleave",mark(false));
    li.addEventListener("focus",mark(true));li.addEventListener("blur",mark(false))});
});
